"""Key -> row number, for keys of which every uint64 is legal: open addressing that grows without a pause."""

from __future__ import annotations

import mmap

import numpy as np

from headrace.ps import kernels

CAPACITY_MIN = 16384
LOAD_MAX = 0.8
CALL_ROWS = 4096
LOAD_PREPARE = 0.7
_PREPARE_WORDS = 1 << 19  # 4 MiB
_EMPTY = np.zeros((0, 2), np.uint64)


def reserve(shape: tuple[int, ...], dtype: type | np.dtype) -> np.ndarray:
    """Zeros of address space: memory is used as pages are touched. Huge pages where there are, for the TLB's sake."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    region = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= 64 << 20 and hasattr(mmap, "MADV_HUGEPAGE"):
        region.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(region, dtype, int(np.prod(shape))).reshape(shape)


class Index:
    """Rows are numbered 0, 1, ... in the order of their keys' arrival; nothing is removed.

    Past a load of 0.8 a second index twice as large takes the new keys, and each call of at most 4,096 keys carries 16,384 buckets over:
    done long before the second one is full. From a load of 0.7 on, each call clears 4 MiB of the index to come: keys scatter, so the first
    call would else wait for all of its pages at once (0.7 s for 256 MiB).
    """

    def __init__(self, capacity: int = CAPACITY_MIN) -> None:
        self._new = reserve((capacity, 2), np.uint64)
        self._old = _EMPTY
        self._next = _EMPTY
        self._cleared = 0  # words of _next
        self._moved = 0  # buckets of _old that have been carried over
        self.count = 0

    @property
    def load(self) -> float:
        return self.count / len(self._new)

    @property
    def bytes(self) -> int:
        return self._new.nbytes + self._old.nbytes + self._next.nbytes

    @property
    def growing(self) -> bool:
        return len(self._old) > 0

    def find(self, keys: np.ndarray) -> np.ndarray:
        """int64[n] rows of uint64[n], -1 for an unknown key."""
        rows = np.empty(len(keys), np.int64)
        kernels.lookup(self._new, self._old, keys, rows)
        return rows

    def find_or_insert(self, keys: np.ndarray, arena_keys: np.ndarray) -> np.ndarray:
        """int64[n] rows of uint64[n], at most 4,096 of them; keys that are new get the next rows and are written to `arena_keys`."""
        assert len(keys) <= CALL_ROWS, "callers cut to CALL_ROWS"
        self._make_room(len(keys))
        rows = np.empty(len(keys), np.int64)
        self.count = kernels.find_or_insert(self._new, self._old, keys, rows, arena_keys, self.count)
        return rows

    def load_all(self, keys: np.ndarray) -> None:
        """Replace all by keys[i] -> i. Raises ValueError for a repeated key."""
        capacity = CAPACITY_MIN
        while len(keys) > LOAD_MAX * capacity:
            capacity *= 2
        self._new, self._old, self._next, self._moved = reserve((capacity, 2), np.uint64), _EMPTY, _EMPTY, 0
        at = kernels.load(self._new, keys)
        if at >= 0:
            raise ValueError(f"key {int(keys[at])} comes twice")
        self.count = len(keys)

    def _make_room(self, incoming: int) -> None:
        if self.growing:
            self._carry(4 * CALL_ROWS)
        if self.count + incoming > LOAD_PREPARE * len(self._new):
            self._prepare()
        if self.count + incoming > LOAD_MAX * len(self._new):
            self._carry(len(self._old) - self._moved)  # by now nothing is left
            self._old, self._moved = self._new, 0
            self._new, self._next = self._next, _EMPTY
            self._carry(4 * CALL_ROWS)

    def _prepare(self) -> None:
        if not len(self._next):
            self._next, self._cleared = reserve((2 * len(self._new), 2), np.uint64), 0
        words = self._next.reshape(-1)
        words[self._cleared : self._cleared + _PREPARE_WORDS] = 0
        self._cleared += _PREPARE_WORDS

    def _carry(self, buckets: int) -> None:
        stop = min(self._moved + buckets, len(self._old))
        if stop > self._moved:
            kernels.migrate(self._old, self._new, self._moved, stop)
        self._moved = stop
        if stop == len(self._old):
            self._old, self._moved = _EMPTY, 0
