"""Inputs that have gone: the share of exposures in which a slot has no value, beside what it was.

Log-loss tells late, or never, that an input is stuck at its default: the model leans on the others. The share of missing values tells at
once, and which slot it is. Only a rise counts: a young stack's inputs fill up by themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RISE = 2.0  # in log-odds
LEAST = 0.05  # and so much of all exposures: a rare input that becomes rarer is no trouble


class Gap(NamedTuple):
    """A slot without a value in `share` of the exposures, `before` until then."""

    slot: str
    share: float
    before: float

    def __str__(self) -> str:
        return f"{self.slot} has no value in {self.share:.0%} of the exposures, {self.before:.0%} before"


class Inputs:
    """`names` of F slots, `empty` uint64[F] their keys without a value. `add` exposures, `turn` once an interval; windows are of `least`
    intervals, and longer until they have `samples_min` exposures. A gap must last `patience` intervals. One thread calls it."""

    def __init__(self, names: Sequence[str], empty: np.ndarray, *, least: int, samples_min: int, patience: int, memory: float) -> None:
        self._names, self._empty = tuple(names), empty
        self._least, self._samples_min, self._patience = least, samples_min, patience
        self._share = 1 - 0.5 ** (1 / memory)  # of an interval, when `memory` of them are half of what is remembered
        self._window: deque[tuple[int, np.ndarray]] = deque()
        self._now = 0, np.zeros(len(self._names), np.int64)
        self._for = np.zeros(len(self._names), np.int64)
        self._turns = 0
        self.before: np.ndarray | None = None
        self.missing: np.ndarray | None = None
        self.gaps: dict[str, Gap] = {}

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Exposures: keys uint64[n,F], values float32[n,F]."""
        count, missing = self._now
        self._now = count + len(keys), missing + ((keys == self._empty) & (values == 0)).sum(axis=0)

    def turn(self) -> tuple[list[Gap], list[str]]:
        """An interval is over: (gaps that have just become known, slots that have values again)."""
        self._window.append(self._now)
        self._now = 0, np.zeros(len(self._names), np.int64)
        while len(self._window) > self._least and sum(count for count, _ in self._window) - self._window[0][0] >= self._samples_min:
            self._window.popleft()
        count = sum(one for one, _ in self._window)
        if count < self._samples_min:
            return [], []
        share: np.ndarray = (np.sum([missing for _, missing in self._window], axis=0) + 0.5) / (count + 1)
        before: np.ndarray = share if self.before is None else self.before
        self.missing = share
        gone = (_log_odds(share) - _log_odds(before) >= RISE) & (share - before >= LEAST)
        self._for = np.where(gone, self._for + 1, 0)
        known = [Gap(self._names[i], float(share[i]), float(before[i])) for i in np.flatnonzero(self._for >= self._patience)]
        new = [gap for gap in known if gap.slot not in self.gaps]
        back = [slot for slot in self.gaps if not gone[self._names.index(slot)]]
        self.gaps = {gap.slot: gap for gap in known}
        self._turns += 1
        step = max(1 / self._turns, self._share)
        self.before = np.where(gone, before, before + step * (share - before))
        return new, back

    def relearn(self) -> None:
        """What is seen is normal: what was is forgotten."""
        self.before, self.gaps, self._turns = None, {}, 0
        self._for[:] = 0

    def state(self) -> dict[str, Any]:
        """As JSON, for the next process."""
        return {"turns": self._turns, "before": None if self.before is None else dict(zip(self._names, self.before.tolist(), strict=True))}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Begin with what `state` gave, if it was of the same slots."""
        before = state["before"]
        if before is not None and tuple(before) == self._names:
            self._turns, self.before = int(state["turns"]), np.array(list(before.values()), np.float64)


def _log_odds(share: np.ndarray) -> np.ndarray:
    return np.log(share) - np.log1p(-share)
