"""Causes and the applied ring: exactly once without transactions.

A cause names the record that brought an effect about: source (31 bits of a topic's uuid or a file's hash), partition, offset. A shard
keeps one bit an offset, in a ring of fixed length for each (scope, source, partition, effect): scope is a model version or a
feature-set version, effect the target or the kind of update. Pages are allocated when touched and dropped when the ring has moved past
them. The owner writes the touched pages with its data: the same WriteBatch, or the same log record and snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from headrace.rpc.errors import BadMessage, TooOld

PAGE_BITS = 4096
NEW, APPLIED, OLD = 0, 1, 2
_WORDS = PAGE_BITS // 64


class Causes(NamedTuple):
    """Three columns of equal length: source int32[n], partition int32[n], offset int64[n]."""

    source: np.ndarray
    partition: np.ndarray
    offset: np.ndarray

    def take(self, index: np.ndarray | slice) -> Causes:
        """The causes at `index` (int or bool array, or a slice)."""
        return Causes(self.source[index], self.partition[index], self.offset[index])

    def __len__(self) -> int:  # rows, not the three columns
        return len(self.offset)


class RingKey(NamedTuple):
    scope: str
    source: int
    partition: int
    effect: str


class Ring:
    """Applied offsets of one RingKey: a window of `length` bits that ends at the page of the highest offset marked.

    `first_page`: pages before it were dropped, with `dropped` bits set. Both are kept with the pages: a ring that is opened with a longer
    length knows no more of them than before, and what was ever applied can still be counted.
    """

    def __init__(self, length: int) -> None:
        assert length >= PAGE_BITS and length % PAGE_BITS == 0, "a ring is a whole number of pages"
        self.length = length
        self.pages: dict[int, np.ndarray] = {}
        self.head_page = -1
        self.first_page = self.dropped = 0

    @property
    def floor(self) -> int:
        """The lowest offset that is still known."""
        return max(self.first_page, self.head_page + 1 - self.length // PAGE_BITS) * PAGE_BITS

    def check(self, offsets: np.ndarray) -> np.ndarray:
        """uint8[n]: NEW, APPLIED or OLD for each of int64[n]. A batch's own repeats are not seen here."""
        status = np.zeros(len(offsets), np.uint8)
        for page, at in _pages(offsets):
            held = self.pages.get(page)
            if held is not None:
                bit = (offsets[at] % PAGE_BITS).astype(np.uint64)
                status[at] = (held[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1)
        status[offsets < self.floor] = OLD
        return status

    def mark(self, offsets: np.ndarray) -> set[int]:
        """Set the bits of int64[n]; the numbers of the pages touched."""
        touched = set()
        for page, at in _pages(offsets):
            touched.add(page)
            held = self.pages.get(page)
            if held is None:
                held = self.pages[page] = np.zeros(_WORDS, np.uint64)
            bit = (offsets[at] % PAGE_BITS).astype(np.uint64)
            np.bitwise_or.at(held, bit >> np.uint64(6), np.uint64(1) << (bit & np.uint64(63)))
        if touched and max(touched) > self.head_page:
            self.head_page = max(touched)
            self.first_page = self.floor // PAGE_BITS
            for page in [page for page in self.pages if page < self.first_page]:
                self.dropped += _bits(self.pages.pop(page))
        return touched

    @property
    def highest(self) -> int:
        """The highest offset marked, -1 before the first."""
        if self.head_page < 0:
            return -1
        word = int(np.nonzero(self.pages[self.head_page])[0][-1])
        return self.head_page * PAGE_BITS + word * 64 + int(self.pages[self.head_page][word]).bit_length() - 1

    def count(self) -> int:
        """All that was ever applied: bits set within the ring, and those that it has moved past."""
        return self.dropped + sum(_bits(page) for page in self.pages.values())


class Rings:
    """All rings of a shard. `length` (bits, whole pages) must cover peak rate a partition x (longest window + longest outage)."""

    def __init__(self, length: int = 1 << 22) -> None:
        self.length = length
        self._rings: dict[RingKey, Ring] = {}

    def check(self, scope: str, effect: str, causes: Causes) -> np.ndarray:
        """uint8[n]: NEW, APPLIED or OLD. Raises BadMessage for a negative number."""
        if len(causes) and (causes.offset.min() < 0 or causes.partition.min() < 0):
            raise BadMessage("a cause has a negative partition or offset")
        status = np.zeros(len(causes), np.uint8)
        for key, at in _groups(scope, effect, causes):
            ring = self._rings.get(key)
            if ring is not None:
                status[at] = ring.check(causes.offset[at])
        return status

    def check_new(self, scope: str, effect: str, causes: Causes) -> np.ndarray:
        """bool[n], True where already applied. Raises TooOld when one lies before its ring, so that the caller stops."""
        status = self.check(scope, effect, causes)
        if (status == OLD).any():
            i = int(np.nonzero(status == OLD)[0][0])
            raise TooOld(
                f"offset {int(causes.offset[i])} of source {int(causes.source[i])}, partition {int(causes.partition[i])} lies before the"
                f" ring of {self.length} offsets of {scope}/{effect}: stop the job, then raise ring_length or backfill")
        return status == APPLIED

    def mark(self, scope: str, effect: str, causes: Causes) -> list[tuple[RingKey, int]]:
        """Set the bits; (key, page number) of every page touched, for the owner to write."""
        touched: list[tuple[RingKey, int]] = []
        for key, at in _groups(scope, effect, causes):
            ring = self._rings.get(key)
            if ring is None:
                ring = self._rings[key] = Ring(self.length)
            touched += [(key, page) for page in sorted(ring.mark(causes.offset[at]))]
        return touched

    def page(self, key: RingKey, page: int) -> bytes | None:
        """The 512 bytes of a page (little-endian words); None when the ring has moved past it."""
        held = self._rings[key].pages.get(page)
        return None if held is None else held.tobytes()

    def restore(self, key: RingKey, page: int, data: bytes) -> None:
        """Put a page back as `page` gave it."""
        ring = self._rings.setdefault(key, Ring(self.length))
        ring.pages[page] = np.frombuffer(data, np.uint64).copy()
        ring.head_page = max(ring.head_page, page)

    def first_page(self, key: RingKey) -> int:
        """Pages of the ring before it were dropped."""
        return self._rings[key].first_page

    def restore_first(self, key: RingKey, page: int, dropped: int = 0) -> None:
        """Put back what `firsts` gave."""
        ring = self._rings.setdefault(key, Ring(self.length))
        ring.first_page, ring.dropped = page, dropped

    def firsts(self) -> Iterator[tuple[RingKey, int, int]]:
        """Of every ring that has dropped pages the first page kept and the bits dropped, in a fixed order, to be written with the pages."""
        for key in sorted(self._rings):
            ring = self._rings[key]
            if ring.first_page:
                yield key, ring.first_page, ring.dropped

    def items(self) -> Iterator[tuple[RingKey, int, bytes]]:
        """Every page of every ring in a fixed order: what a snapshot holds."""
        for key in sorted(self._rings):
            for page in sorted(self._rings[key].pages):
                yield key, page, self._rings[key].pages[page].tobytes()

    def highest(self, key: RingKey) -> int:
        """The highest offset applied under `key`, -1 before the first."""
        ring = self._rings.get(key)
        return -1 if ring is None else ring.highest

    def effects(self, scope: str) -> dict[str, int]:
        """Causes ever applied under `scope`, by effect."""
        found: dict[str, int] = {}
        for key, ring in self._rings.items():
            if key.scope == scope:
                found[key.effect] = found.get(key.effect, 0) + ring.count()
        return found

    def count(self, scope: str, effect: str | None = None) -> int:
        """Causes ever applied under `scope` (and `effect`)."""
        return sum(ring.count() for key, ring in self._rings.items() if key.scope == scope and effect in (None, key.effect))


def _bits(page: np.ndarray) -> int:
    return int(np.unpackbits(page.view(np.uint8)).sum())


def _groups(scope: str, effect: str, causes: Causes) -> Iterator[tuple[RingKey, np.ndarray | slice]]:
    """By ring, and which causes are of it: most often all are of one."""
    if not len(causes):
        return
    code = (causes.source.astype(np.int64) << 32) | causes.partition.astype(np.int64)
    one = bool((code == code[0]).all())
    for value in code[:1] if one else np.unique(code):
        yield RingKey(scope, int(value >> 32), int(value & 0xFFFFFFFF), effect), slice(None) if one else np.nonzero(code == value)[0]


def _pages(offsets: np.ndarray) -> Iterator[tuple[int, np.ndarray | slice]]:
    """Page numbers of int64[n], each with which offsets are of it."""
    if not len(offsets):
        return
    pages = offsets // PAGE_BITS
    one = bool((pages == pages[0]).all())
    for page in pages[:1] if one else np.unique(pages):
        yield int(page), slice(None) if one else np.nonzero(pages == page)[0]
