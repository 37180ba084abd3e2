"""Features against their bounds: of each the newest window of exposures, beside a reference of its own.

No input and output: it is given exposures and the time, and says what has left its bounds and what has come back. A bound must be broken
for `patience` intervals in turn, and it is told once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from headrace.features.feature_set import FeatureSet
from headrace.quality import Quality as Limits
from headrace.watch.feature_columns import BROKEN, DEFAULT, DRIFT, IDS, NULL, RANGE, STALE, Column, columns_of, values_of
from headrace.watch.feature_sources import Sources
from headrace.watch.sketches import Summary, psi

STRETCH = 12


class Finding(NamedTuple):
    """A feature has left a bound, or (`broken` False) is within it again. `hard`: what is read of it is wrong, not only other."""

    feature: str
    bound: str
    broken: bool
    hard: bool
    why: str


@dataclass
class Watched:
    """Of a column: windows of the newest intervals, the reference or what is gathered for one, the bounds that it has broken."""

    column: Column
    now: Summary = field(default_factory=Summary)
    intervals: deque[Summary] = field(default_factory=deque)
    window: Summary = field(default_factory=Summary)
    reference: Summary | None = None
    edges: np.ndarray = field(default_factory=lambda: np.zeros(0))
    gathered: Summary = field(default_factory=Summary)
    gathered_s: float = 0.0
    psi: float | None = None
    age_s: float | None = None
    turns: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


class FeatureQuality:
    """Over a feature set. `add` exposures, `sources.add` events, `turn` once in limits.interval_s. One thread at a time."""

    def __init__(self, feature_set: FeatureSet, limits: Limits) -> None:
        self.limits = limits
        self.sources = Sources(feature_set, limits.interval_s, limits.stale_s, limits.stale_events)
        self.watched = {column.name: Watched(column) for column in columns_of(feature_set)}
        self._empty, self._least = feature_set.empty_keys, max(1, round(limits.window_s / limits.interval_s))

    def add(self, keys: np.ndarray, values: np.ndarray, numbers: np.ndarray) -> None:
        """Exposures: keys uint64[n,F], values float32[n,F], numbers float32[n,K], as they are frozen into samples."""
        for one in self.watched.values():
            column = one.column
            if column.kind == IDS:
                places = list(column.places)
                found = keys[:, places]
                one.now.ids(found, (values[:, places] != 0) & (found != self._empty[places]))
            else:
                one.now.numbers(values_of(column, keys, values, numbers), column.blank, column.bounds.least, column.bounds.most)

    def turn(self, now_ms: int) -> list[Finding]:
        """An interval is over."""
        dead, ages = self.sources.turn(now_ms), self.sources.age_s(now_ms)
        found = []
        for one in self.watched.values():
            self._slide(one)
            whys = self._broken(one)
            if one.column.place >= 0:
                one.age_s = ages[one.column.place]
                silence = dead.get(one.column.place)
                if silence is not None:
                    whys[STALE] = (f"no event has counted for it for {silence.seconds:.0f} s, in which {silence.expected:.0f} were expected"
                                   " by the exposures")
            found += self._told(one, whys)
            self._gather(one)
        return found

    def reset(self, feature: str) -> None:
        """What `feature` ("": each) is from here on is its reference."""
        for one in self.watched.values():
            if feature in ("", one.column.name):
                one.reference, one.edges, one.gathered, one.gathered_s, one.psi = None, np.zeros(0), Summary(), 0.0, None
                one.turns.pop(DRIFT, None)

    def _slide(self, one: Watched) -> None:
        one.intervals.append(one.now)
        one.now = Summary()
        total = sum(interval.n for interval in one.intervals)
        while len(one.intervals) > self._least and (total - one.intervals[0].n >= self.limits.samples_min
                                                    or len(one.intervals) > STRETCH * self._least):
            total -= one.intervals.popleft().n
        one.window = Summary()
        for interval in one.intervals:
            one.window.join(interval)

    def _broken(self, one: Watched) -> dict[str, str]:
        """Why, by bound. With too few exposures nothing is said."""
        column, window, limits = one.column, one.window, self.limits
        bounds, n = column.bounds, window.n
        enough = n >= limits.samples_min
        one.psi = psi(one.reference.counts(one.edges), window.counts(one.edges)) if one.reference is not None and enough else None
        if not enough or column.place < 0:
            return {}
        whys = {}
        if window.outside / n > limits.outside:
            whys[RANGE] = (f"{window.outside / n:.1%} of its values lie outside {bounds.least:g} to {bounds.most:g}: they reach from"
                           f" {window.quantiles.get_min_value():g} to {window.quantiles.get_max_value():g}")
        null_rate = bounds.null_rate if bounds.null_rate is not None else limits.null_rate if column.kind != IDS else 1.0
        if window.null / n > null_rate:
            whys[NULL] = f"{window.null / n:.1%} of {n:,} exposures read {'no id' if column.kind == IDS else 'no finite number'} of it"
        if bounds.default_rate is not None and window.default / n > bounds.default_rate:
            whys[DEFAULT] = f"{window.default / n:.1%} of {n:,} exposures read its default, {column.blank:g}"
        drift = bounds.psi if bounds.psi is not None else limits.psi if column.drifts else np.inf
        if one.psi is not None and one.psi > drift:
            whys[DRIFT] = f"PSI {one.psi:.2f} against its reference, {drift:g} is allowed{self._moved(one)}"
        return whys

    def _moved(self, one: Watched) -> str:
        before, now = one.reference, one.window
        if before is None or before.quantiles.is_empty() or now.quantiles.is_empty():
            return ""
        return f"; its median is {now.quantiles.get_quantile(0.5):g}, was {before.quantiles.get_quantile(0.5):g}"

    def _told(self, one: Watched, whys: Mapping[str, str]) -> list[Finding]:
        found = []
        for bound in BROKEN:
            one.turns[bound] = one.turns.get(bound, 0) + 1 if bound in whys else 0
            if bound in whys and (bound in one.broken or one.turns[bound] >= self.limits.patience or bound == STALE):
                if bound not in one.broken:
                    found.append(Finding(one.column.name, bound, True, bound != DRIFT, whys[bound]))
                one.broken[bound] = whys[bound]
            elif bound in one.broken and (one.age_s is not None if bound == STALE else one.window.n >= self.limits.samples_min):
                del one.broken[bound]
                found.append(Finding(one.column.name, bound, False, bound != DRIFT, "within its bound again"))
        return found

    def _gather(self, one: Watched) -> None:
        """Towards a reference, while nothing is wrong with it."""
        if one.reference is not None or any(bound != DRIFT for bound in one.broken) or not one.intervals[-1].n:
            return
        one.gathered.join(one.intervals[-1])
        one.gathered_s += self.limits.interval_s
        if one.gathered.n >= self.limits.reference_min and one.gathered_s >= self.limits.reference_s:
            one.reference, one.gathered = one.gathered, Summary()
            one.edges = one.reference.edges() if one.column.kind != IDS else np.zeros(0)

    def state(self) -> dict[str, Any]:
        """As JSON, for the next process: references, and what is known to be broken, so that it is not told again."""
        return {"sources": self.sources.state(), "features": {
            name: {"said": one.column.said(), "reference": None if one.reference is None else one.reference.state(),
                   "gathered": one.gathered.state(), "gathered_s": one.gathered_s, "broken": one.broken}
            for name, one in self.watched.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Begin with what `state` gave, of the features that are the same. Raises KeyError, ValueError, TypeError, RuntimeError."""
        self.sources.restore(state["sources"])
        for name, held in state["features"].items():
            one = self.watched.get(name)
            if one is None or tuple(held["said"]) != one.column.said():
                continue
            one.gathered, one.gathered_s, one.broken = Summary.of(held["gathered"]), float(held["gathered_s"]), dict(held["broken"])
            if held["reference"] is not None:
                one.reference = Summary.of(held["reference"])
                one.edges = one.reference.edges() if one.column.kind != IDS else np.zeros(0)
