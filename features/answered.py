"""What causes were answered with, kept by block and partition: a cause that comes again gets the same answer.

Family `answers`: block, source and partition -> what FrozenRows wrote; family `blocks`: source, partition, lowest and highest offset, block
-> nothing, so that opening a store reads no answers.
"""

from __future__ import annotations

import struct

import numpy as np

from headrace.features.block_log import Writes
from headrace.features.frozen import Frozen, FrozenRows
from headrace.features.store import FeatureStore
from headrace.rpc.causes import Causes
from headrace.rpc.errors import TooOld

_ANSWER = struct.Struct(">QII")
_BLOCK = struct.Struct(">IIQQQ")
Where = tuple[int, int]
"""Source and partition."""


class Answered:
    """Over `store`; `offsets`: how many of a partition are kept at least."""

    def __init__(self, store: FeatureStore, rows: FrozenRows, offsets: int) -> None:
        self._store, self._rows, self._offsets = store, rows, offsets
        self._blocks: dict[Where, list[tuple[int, int, int]]] = {}  # lowest offset, highest offset, block
        for key, _ in store.scan("blocks"):
            source, partition, *block = _BLOCK.unpack(key)
            self._blocks.setdefault((source, partition), []).append((block[0], block[1], block[2]))

    def put(self, writes: Writes, block: int, causes: Causes, answer: Frozen, of: np.ndarray) -> None:
        """Keep the answers to distinct new causes, int64[n] `of` which partition each is (any numbers)."""
        for number in np.unique(of) if len(of) and (of != of[0]).any() else of[:1]:
            mine = np.nonzero(of == number)[0]
            part = causes.take(mine)
            where = int(part.source[0]), int(part.partition[0])
            span = int(part.offset.min()), int(part.offset.max())
            writes.put("answers", _ANSWER.pack(block, *where), self._rows.to_bytes(part.offset, answer.take(mine)))
            writes.put("blocks", _BLOCK.pack(*where, *span, block), b"")
            self._blocks.setdefault(where, []).append((*span, block))

    def find(self, causes: Causes) -> Frozen:
        """The answers to causes that were applied. Raises TooOld when one is no longer kept."""
        found = Frozen.empty(len(causes), self._rows.set.F, self._rows.set.K)
        there = np.zeros(len(causes), bool)
        for where in {*zip(causes.source.tolist(), causes.partition.tolist(), strict=True)}:
            mine = np.nonzero((causes.source == where[0]) & (causes.partition == where[1]))[0]
            wanted = causes.offset[mine]
            lowest, highest = int(wanted.min()), int(wanted.max())
            for low, high, block in self._blocks.get(where, ()):
                if high < lowest or low > highest:
                    continue
                data = self._store.get("answers", [_ANSWER.pack(block, *where)])[0]
                assert data is not None, f"block {block} is listed and its answers are not there"
                offset, held = self._rows.from_bytes(data)
                order = np.argsort(offset)
                at = order[np.minimum(np.searchsorted(offset, wanted, sorter=order), len(order) - 1)]
                hit = offset[at] == wanted
                there[mine[hit]] = True
                for whole, column in zip(found, held, strict=True):
                    whole[mine[hit]] = column[at[hit]]
        if not there.all():
            first = int(np.nonzero(~there)[0][0])
            raise TooOld(f"offset {int(causes.offset[first])} of source {int(causes.source[first])}, partition"
                         f" {int(causes.partition[first])} was folded, and its frozen sample is gone: only the last {self._offsets} offsets"
                         " are kept; start the job from a newer offset, or raise frozen_offsets")
        return found

    def prune(self, writes: Writes, where: Where, floor: int) -> None:
        """Delete the blocks whose offsets all lie below `floor`."""
        blocks = self._blocks.get(where, [])
        for low, high, block in blocks:
            if high < floor:
                writes.delete("answers", _ANSWER.pack(block, *where))
                writes.delete("blocks", _BLOCK.pack(*where, low, high, block))
        self._blocks[where] = [one for one in blocks if one[1] >= floor]

    def kept(self) -> int:
        """Causes whose answers are kept; reads them all."""
        return sum(len(self._rows.from_bytes(data)[0]) for _, data in self._store.scan("answers"))
