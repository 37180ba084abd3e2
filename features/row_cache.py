"""The rows of a family that were read or written last, in memory as they lie in the store. Its owner is the only writer of the store."""

from __future__ import annotations

from itertools import repeat

import numpy as np

BYTES_MAX = 64 << 20  # of rows a family; taken when they come


class RowCache:
    """Of rows of `width` bytes under uint64 keys, 0 being none; the oldest ones make room."""

    def __init__(self, width: int, bytes_max: int = BYTES_MAX) -> None:
        self.width = width
        count = max(1, bytes_max // width)
        self._rows, self._keys = np.zeros(count, f"V{width}"), np.zeros(count, np.uint64)
        self._place: dict[int, int] = {}
        self._next = 0

    def get(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows V[n], held bool[n]) of uint64[n]; a row that is not held is any."""
        place = self._places(keys)
        return self._rows[place], place >= 0

    def put(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Rows of any dtype as wide, under distinct keys."""
        place, rows = self._places(keys), rows.view(self._rows.dtype)
        known = place >= 0
        self._rows[place[known]] = rows[known]
        self._add(keys[~known], rows[~known])

    def drop(self, keys: np.ndarray) -> None:
        """Hold none of these any more."""
        for key in keys.tolist():
            place = self._place.pop(key, None)
            if place is not None:
                self._keys[place] = 0

    def _add(self, keys: np.ndarray, rows: np.ndarray) -> None:
        count = len(self._keys)
        keys, rows = keys[:count], rows[:count]
        at = (self._next + np.arange(len(keys))) % count
        for gone in self._keys[at].tolist():
            self._place.pop(gone, None)
        self._keys[at], self._rows[at] = keys, rows
        self._place.update(zip(keys.tolist(), at.tolist(), strict=True))
        self._next = (self._next + len(keys)) % count

    def _places(self, keys: np.ndarray) -> np.ndarray:
        return np.fromiter(map(self._place.get, keys.tolist(), repeat(-1)), np.int64, len(keys))
