"""Rows that nobody has touched for long are found, some at a time, to be deleted: what bounds a store whose users and items come and go.

A row is as none to who looks at it more than `idle` after its newest event: events begin it anew, reads see a blank one (kernels.py,
reducer_kernels.py). So it may go as soon as everybody who comes looks later than that; it goes `idle` after that, by the newest event
time folded, and only an event that is late by more than `idle` can tell whether it was gone already.
"""

from __future__ import annotations

import numpy as np

from headrace.features.layout import ITEM_ROW, USER_ROW
from headrace.features.layouts import GROUP
from headrace.features.set_kernels import NEWEST
from headrace.features.store import FeatureStore

_REST = 8  # a pass begins when the time has gone on by this part of `idle`
_LAST = {family: int(dict(dtype.fields or {})["last_ts_ms"][1]) for family, dtype in (("users", USER_ROW), ("items", ITEM_ROW))}


class Sweep:
    """Over the rows in `store`, those of entities that no definition is of any more too; each family in the order of its keys, again and
    again."""

    def __init__(self, store: FeatureStore, idle_ms: int) -> None:
        self._store, self._idle_ms = store, idle_ms
        self.families = [name for name in store.families() if name in _LAST or name.startswith(GROUP)]
        self._at, self._since = 0, b""
        self._began_ms = -idle_ms

    def next(self, now_ms: int, count: int) -> tuple[str, np.ndarray]:
        """Look at up to `count` rows: their family, and the keys uint64[n] of those that may go. `now_ms`: the newest event time folded."""
        if self._at == 0 and not self._since:
            if now_ms - self._began_ms < self._idle_ms / _REST:
                return self.families[0], np.zeros(0, np.uint64)
            self._began_ms = now_ms
        family = self.families[self._at]
        held = self._store.some(family, self._since, count)
        if len(held) < count:
            self._at, self._since = (self._at + 1) % len(self.families), b""
        else:
            self._since = held[-1][0] + b"\0"
        old = [key for key, row in held if now_ms - _newest_ms(family, row) > 2 * self._idle_ms]
        return family, np.frombuffer(b"".join(old), ">u8").astype(np.uint64)


def _newest_ms(family: str, row: bytes) -> float:
    """Of a row as it lies in the store, of any layout."""
    if family in _LAST:
        return int(np.frombuffer(row, "<i8", 1, _LAST[family])[0])
    return float(np.frombuffer(row, "<f8", 1, 8 * NEWEST)[0]) - 1.0
