"""Which (cause, target) a lake holds already, within bounded memory, exactly.

Rings of bits (rpc/causes.py) answer for causes near the newest one, and are marked again at the start from the files themselves: no state
of its own can be older or newer than the lake. A cause that lies before its ring, as a topic of exposures read again from its beginning
would bring, is looked up in the files whose ranges of causes hold it: slower, and as exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute

from headrace.lake import files, manifest
from headrace.lake.columns import KEY
from headrace.lake.errors import LakeDamaged
from headrace.lake.manifest import File, Span
from headrace.lake.store import Store
from headrace.rpc.causes import NEW, OLD, PAGE_BITS, Causes, Rings

SCOPE = "lake"
RingOf = tuple[str, int, int]  # target, source, partition


class Known:
    """`ring_length`: offsets a source partition and target, a multiple of 4,096; one bit each. `held` are the lake's."""

    def __init__(self, store: Store, held: Sequence[File], ring_length: int) -> None:
        self._store, self._files, self._rings = store, list(held), Rings(ring_length)
        self._base = -1  # generation of the base that the files are of; -1: it was not asked yet
        self._since: list[tuple[str, Causes]] = []  # taken since the last commit, and in no file yet
        self.looked_up = 0
        self._restore(ring_length)

    def first(self, target: Sequence[str], causes: Causes) -> np.ndarray:
        """bool[n]: the first of its (cause, target) ever; these are known from now on."""
        found, targets = np.zeros(len(causes), bool), np.asarray(target)
        for one in dict.fromkeys(target):
            at = np.nonzero(targets == one)[0]
            at = at[_first_in(causes.take(at))]
            status = self._rings.check(SCOPE, one, causes.take(at))
            fresh, old = at[status == NEW], at[status == OLD]
            if len(old):
                fresh = np.sort(np.concatenate([fresh, old[~self._holds(one, causes.take(old))]]))
            self._rings.mark(SCOPE, one, causes.take(at[status == NEW]))
            if len(fresh):
                self._since.append((one, causes.take(fresh)))
                found[fresh] = True
        return found

    def committed(self, made: Sequence[File]) -> None:
        """What was taken is in the files `made` now."""
        self._files += made
        self._since.clear()

    def _restore(self, ring_length: int) -> None:
        """Mark what the files hold of each ring's length before its newest cause; files that lie wholly before are not opened."""
        heads: dict[RingOf, int] = {}
        for span in _spans(self._files):
            key = _ring_of(span)
            heads[key] = max(heads.get(key, 0), span.last)
        floors = {key: (head // PAGE_BITS + 1 - ring_length // PAGE_BITS) * PAGE_BITS for key, head in heads.items()}
        for file in self._files:
            if any(span.last >= floors[_ring_of(span)] for span in file.causes):
                for target, causes in self._causes(file):
                    floor = np.array([floors[target, source, partition] for source, partition in
                                      zip(causes.source.tolist(), causes.partition.tolist(), strict=True)], np.int64)
                    self._rings.mark(SCOPE, target, causes.take(causes.offset >= floor))

    def _holds(self, target: str, causes: Causes) -> np.ndarray:
        """bool[n]: a file, or what is to become one, has this cause. Opens files."""
        self.looked_up += len(causes)
        wanted = set(_tuples(causes))
        held: set[tuple[int, int, int]] = set()
        for one, since in self._since:
            if one == target:
                held |= wanted.intersection(_tuples(since.take(np.isin(since.offset, causes.offset))))
        held |= self._in_files(target, causes, wanted)
        return np.array([cause in held for cause in _tuples(causes)], bool)

    def _in_files(self, target: str, causes: Causes, wanted: set[tuple[int, int, int]]) -> set[tuple[int, int, int]]:
        """Those of `wanted` that a file holds, though the lake be rewritten meanwhile. Raises LakeDamaged."""
        while True:
            held: set[tuple[int, int, int]] = set()
            self._look()
            try:
                for file in self._files:
                    if any(span.target == target and _meets(span, causes) for span in file.causes):
                        for one, inside in self._causes(file):
                            if one == target:
                                held |= wanted.intersection(_tuples(inside.take(np.isin(inside.offset, causes.offset))))
                return held
            except LakeDamaged:
                if manifest.newest_base(self._store) == self._base:
                    raise

    def _look(self) -> None:
        """Take the files of a newer base."""
        newest = manifest.newest_base(self._store)
        if newest != self._base:
            found = manifest.load(self._store)
            self._files = [file for one in found for file in one.files]
            self._base = newest

    def _causes(self, file: File) -> Iterator[tuple[str, Causes]]:
        """By target the causes of a file. Raises LakeDamaged."""
        table = files.read(self._store, file, list(KEY))
        for target in file.labels:
            part = table.filter(pyarrow.compute.equal(table["target"], target))
            yield target, Causes(*(part[name].to_numpy() for name in KEY[:3]))


def _first_in(causes: Causes) -> np.ndarray:
    """int64[m]: where each cause stands first, in their order."""
    order = np.lexsort((causes.offset, causes.partition, causes.source))  # stable: of equal ones the first stays first
    begins = np.ones(len(order), bool)
    begins[1:] = np.any([np.diff(column[order]) != 0 for column in causes], axis=0)
    return np.sort(order[begins])


def _meets(span: Span, causes: Causes) -> bool:
    inside = (causes.source == span.source) & (causes.partition == span.partition)
    return bool((inside & (causes.offset >= span.first) & (causes.offset <= span.last)).any())


def _spans(held: Sequence[File]) -> Iterator[Span]:
    return (span for file in held for span in file.causes)


def _ring_of(span: Span) -> RingOf:
    return span.target, span.source, span.partition


def _tuples(causes: Causes) -> list[tuple[int, int, int]]:
    return list(zip(causes.source.tolist(), causes.partition.tolist(), causes.offset.tolist(), strict=True))
