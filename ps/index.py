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


def kernel_input(array: np.ndarray) -> np.ndarray:
    """`array` contiguous, aligned and read-only: one specialisation of a kernel serves arrays of any origin."""
    view = np.require(array, None, ["C", "A"]).view()
    view.flags.writeable = False
    return view


class Index:
    """A key that comes gets a row that was given back, the last one first, and else the next new one: 0, 1, ... up to `high`.

    Past a load of 0.8 a second index twice as large takes the new keys, and each call of at most 4,096 keys carries 16,384 buckets over:
    done long before the second one is full. From a load of 0.7 on, each call clears 4 MiB of the index to come: keys scatter, so the first
    call would else wait for all of its pages at once (0.7 s for 256 MiB).
    """

    def __init__(self, capacity: int = CAPACITY_MIN, keys_max: int = 1 << 62) -> None:
        self._keys_max = keys_max  # will ever be held: there is nothing to prepare beyond
        self._new = reserve((capacity, 2), np.uint64)
        self._old = _EMPTY
        self._next = _EMPTY
        self._cleared = 0  # words of _next
        self._moved = 0  # buckets of _old that have been carried over
        self.high = 0  # rows ever given
        self._free = np.zeros(1024, np.int64)
        self._left = 0

    @property
    def count(self) -> int:
        """Keys held."""
        return self.high - self._left

    @property
    def load(self) -> float:
        return self.count / len(self._new)

    @property
    def bytes(self) -> int:
        return self._new.nbytes + self._old.nbytes + 8 * min(self._cleared, self._next.size) + self._free.nbytes

    @property
    def growing(self) -> bool:
        return len(self._old) > 0

    def find(self, keys: np.ndarray) -> np.ndarray:
        """int64[n] rows of uint64[n], -1 for an unknown key."""
        rows = np.empty(len(keys), np.int64)
        kernels.lookup(self._new, self._old, keys, rows)
        return rows

    def find_or_insert(self, keys: np.ndarray, arena_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(int64[n] rows of uint64[n], at most 4,096 of them; int64[m] those of keys that are new, which are written to `arena_keys`)."""
        assert len(keys) <= CALL_ROWS, "callers cut to CALL_ROWS"
        self._make_room(len(keys))
        rows, born = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
        self.high, self._left, count = kernels.find_or_insert(self._new, self._old, keys, rows, arena_keys, self.high, self._free,
                                                              self._left, born)
        assert count >= 0, "a row past the arena would be written over a neighbour's memory: ask room_for first"
        return rows, born[:count]

    def remove(self, keys: np.ndarray) -> np.ndarray:
        """int64[m] the rows that uint64[n] distinct keys had, of those that were there; they are given to keys that come."""
        rows = np.empty(len(keys), np.int64)
        kernels.remove(self._new, self._old, keys, rows)
        rows = rows[rows >= 0]
        if self._left + len(rows) > len(self._free):
            self._free = np.concatenate([self._free, np.zeros(max(len(self._free), len(rows)), np.int64)])
        self._free[self._left : self._left + len(rows)] = rows
        self._left += len(rows)
        return rows

    def load_all(self, keys: np.ndarray) -> None:
        """Replace all by keys[i] -> i. Raises ValueError for a repeated key."""
        capacity = CAPACITY_MIN
        while len(keys) > LOAD_MAX * capacity:
            capacity *= 2
        self._new, self._old, self._next, self._moved = reserve((capacity, 2), np.uint64), _EMPTY, _EMPTY, 0
        self._cleared = 0
        at = kernels.load(self._new, keys)
        if at >= 0:
            raise ValueError(f"key {int(keys[at])} comes twice")
        self.high, self._left = len(keys), 0

    def _make_room(self, incoming: int) -> None:
        if self.growing:
            self._carry(4 * CALL_ROWS)
        if self.count + incoming > LOAD_PREPARE * len(self._new) and self._keys_max > LOAD_MAX * len(self._new):
            self._prepare()
        if min(self.count + incoming, self._keys_max) > LOAD_MAX * len(self._new):
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
