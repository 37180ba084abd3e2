"""What causes were answered with, as bytes in the store: status and sequence, and the samples of frozen impressions."""

from __future__ import annotations

import json
import math
from typing import NamedTuple

import numpy as np

from headrace.features.feature_set import FeatureSet
from headrace.features.known_sets import KnownSets, Layout
from headrace.features.layout import FEATURE_SET, NUMBERS, REPEATED, RETRY, SLOTS, F, K
from headrace.features.store import FeatureStore

_VERSION = 4
_HEAD = np.dtype([("version", "u1"), ("spare", "u1"), ("layout", "<u2"), ("causes", "<u4"), ("samples", "<u4"), ("more", "<u4")])
_NOTE = b"frozen sets"


class Frozen(NamedTuple):
    """The answer to n events: keys uint64[n,F], values float32[n,F], numbers float32[n,K], sequence int64[n] (of the shard, before the
    event), status uint8[n]. Rows that are no frozen impression are zeros."""

    keys: np.ndarray
    values: np.ndarray
    numbers: np.ndarray
    sequence: np.ndarray
    status: np.ndarray

    @classmethod
    def empty(cls, n: int, slots: int = F, numbers: int = K) -> Frozen:
        return cls(np.zeros((n, slots), np.uint64), np.zeros((n, slots), np.float32), np.zeros((n, numbers), np.float32),
                   np.zeros(n, np.int64), np.zeros(n, np.uint8))

    def take(self, index: np.ndarray) -> Frozen:
        return Frozen(*(column[index] for column in self))


class FrozenRows:
    """Writes answers of `feature_set`, and reads those of any set that `store` ever had: a feature that one of then lacks is read as blank,
    since it was not kept at that event."""

    def __init__(self, store: FeatureStore, feature_set: FeatureSet) -> None:
        self.set = feature_set
        held = json.loads(store.note(_NOTE) or json.dumps([[FEATURE_SET, SLOTS, NUMBERS]]))
        self.layouts = [Layout(name, tuple(slots), tuple(numbers)) for name, slots, numbers in held]
        mine = Layout(feature_set.name, feature_set.layout_slots, feature_set.layout_numbers)
        if mine not in self.layouts:
            self.layouts.append(mine)
            store.put_note(_NOTE, json.dumps(self.layouts).encode())
        self._number = self.layouts.index(mine)
        self._known = KnownSets(feature_set, self.layouts)

    def to_bytes(self, offset: np.ndarray, frozen: Frozen) -> bytes:
        """Answers to causes of one partition at int64[n]. A sample that was not frozen (its bias slot is 0) is not kept."""
        has = frozen.values[:, 0] != 0
        head = np.zeros(1, _HEAD)
        head["version"], head["layout"], head["causes"], head["samples"] = _VERSION, self._number, len(offset), has.sum()
        columns = offset, frozen.sequence, frozen.status, has, frozen.keys[has], frozen.values[has], frozen.numbers[has]
        return b"".join((head.tobytes(), *(column.tobytes() for column in columns)))

    def from_bytes(self, data: bytes) -> tuple[np.ndarray, Frozen]:
        """(offset int64[n], what their causes are answered with when they come again): status REPEATED, or RETRY where it was one."""
        head = np.frombuffer(data, _HEAD, 1)[0]
        assert head["version"] == _VERSION, f"frozen rows of version {head['version']}, this code reads {_VERSION}"
        name, slots, numbers = self.layouts[head["layout"]]
        n, m, at = int(head["causes"]), int(head["samples"]), _HEAD.itemsize
        columns = []
        for dtype, shape in (("<i8", (n,)), ("<i8", (n,)), ("u1", (n,)), ("?", (n,)), ("<u8", (m, len(slots))), ("<f4", (m, len(slots))),
                             ("<f4", (m, len(numbers)))):
            column = np.frombuffer(data, dtype, math.prod(shape), at).reshape(shape)
            columns.append(column)
            at += column.nbytes
        offset, sequence, status, has, *sample = columns
        if head["layout"] != self._number:
            sample = list(self._known.now(name, *sample))
        frozen = Frozen.empty(n, self.set.F, self.set.K)
        frozen.sequence[:], frozen.status[:] = sequence, np.where(status == RETRY, RETRY, REPEATED)
        for whole, column in zip(frozen[:3], sample, strict=True):
            whole[has] = column
        return offset, frozen
