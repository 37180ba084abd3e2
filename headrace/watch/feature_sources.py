"""Definitions whose source has died: events go on, and none of them counts any more.

Silence is measured in exposures: of a definition so many events an exposure are expected as there were, so nothing is dead because nobody
is there. By Poisson a silence in which 20 events were expected comes by chance once in 5e8 windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.features.feature_set import FeatureSet
from headrace.features.inputs import FunctionError, of_records, take

KNOWN_EVENTS = 20.0  # before its rate is believed
HALF_LIFE_S = 3600.0
Record = Mapping[str, Any]


class Silence(NamedTuple):
    """Of a definition: seconds, and how many events were expected in them."""

    seconds: float
    expected: float


class Sources:
    """Over a feature set's definitions. `add` events, `turn` once in `interval_s`. One thread at a time."""

    def __init__(self, feature_set: FeatureSet, interval_s: float, stale_s: float, stale_events: float) -> None:
        self._set, self._stale_s, self._stale_events = feature_set, stale_s, stale_events
        self._keep = 0.5 ** (interval_s / HALF_LIFE_S)
        count = len(feature_set.definitions)
        self._now, self._exposures = np.zeros(count), 0
        self._events, self._over = np.zeros(count), np.zeros(count)  # decayed: events, and the exposures that they are of
        self._silent = np.zeros(count)  # exposures since the newest event
        self._newest_ms = np.zeros(count, np.int64)  # append time; 0: none yet
        self._began_ms = 0

    def add(self, records: Sequence[tuple[int, Record]]) -> None:
        """(append time in ms, interaction)."""
        events = [(at_ms, one) for at_ms, one in records if one["user_id"] and one["item_id"]]
        if not events:
            return
        at_ms = np.array([at_ms for at_ms, _ in events], np.int64)
        self._exposures += sum(one["action"] == "impression" for _, one in events)
        counts = self._counting([one for _, one in events])
        self._now += counts.sum(axis=0)
        self._newest_ms = np.maximum(self._newest_ms, np.where(counts, at_ms[:, None], 0).max(axis=0))

    def _counting(self, records: list[Record]) -> np.ndarray:
        """bool[n,D]: which definition each event counts for. An event that a function fails on counts for none: it is a dead letter."""
        try:
            taken = take(self._set, of_records(records, self._set), records)
        except FunctionError:
            if len(records) == 1:
                return np.zeros((1, len(self._now)), bool)
            return np.concatenate([self._counting([one]) for one in records])
        shown = len(self._now)  # what is behind is for finding rows
        return np.isfinite(taken.x[:, :shown]) | taken.tokens[:, :shown].any(axis=2)

    def turn(self, now_ms: int) -> dict[int, Silence]:
        """An interval is over: the definitions that are dead."""
        self._began_ms = self._began_ms or now_ms
        self._silent += self._exposures
        heard = self._now > 0
        self._events = np.where(heard, self._events * self._keep + self._now, self._events)
        self._over = np.where(heard, self._over * self._keep + self._silent, self._over)
        self._silent[heard] = 0
        self._now, self._exposures = np.zeros(len(self._now)), 0
        found = {}
        for d, one in enumerate(self._set.definitions):
            seconds = (now_ms - max(self._newest_ms[d], self._began_ms)) / 1000
            known = self._over[d] and self._events[d] >= KNOWN_EVENTS
            expected = float(self._silent[d] * self._events[d] / self._over[d]) if known else 0.0
            lasting = one.bounds.stale_ms is not None and seconds * 1000 > one.bounds.stale_ms
            if lasting or (seconds >= self._stale_s and expected >= self._stale_events):
                found[d] = Silence(seconds, expected)
        return found

    def age_s(self, now_ms: int) -> list[float | None]:
        """Of the newest event that counts, by definition; None before the first."""
        return [(now_ms - at_ms) / 1000 if at_ms else None for at_ms in self._newest_ms.tolist()]

    def state(self) -> dict[str, Any]:
        """As JSON, for the next process."""
        return {one.identity: {"events": self._events[d], "over": self._over[d]} for d, one in enumerate(self._set.definitions)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Begin with the rates that `state` gave, of the definitions that are the same."""
        for d, one in enumerate(self._set.definitions):
            if one.identity in state:
                self._events[d], self._over[d] = float(state[one.identity]["events"]), float(state[one.identity]["over"])
