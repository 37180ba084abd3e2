"""Scores of live and of every version on the same watched exposures, made before their label was known, and settled with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.models.batch import Batch
from headrace.models.inputs import Inputs
from headrace.watch.exposed import Exposed, Records, Share

Scores = dict[int, np.ndarray]


class Shadow:
    """`score(batch)` gives float32[n] by version, 0 (live) among them; `take(label float64[n], the same of n settled ones)` is told of
    samples that were scored by the same versions. Two threads may call `expose` and `settle`. `outcomes`: as Watcher's; `masked`: as
    Exposed's."""

    def __init__(self, score: Callable[[Batch], Scores], take: Callable[[np.ndarray, Scores], Any], *, inputs: Inputs, target: str,
                 share: float, rate_max: float, now_ms: Callable[[], int], clock_s: Callable[[], float],
                 masked: Callable[[], Sequence[str]] = tuple) -> None:
        self._take, self._now_ms = take, now_ms
        self._exposed = Exposed[Scores, dict[int, float]](score, Share(share, rate_max, clock_s), inputs, target, masked)
        self._lock = threading.Lock()
        self.outcomes = self._exposed.outcomes

    def expose(self, records: Records) -> None:
        """Score the watched impressions of `enriched`. Raises what `score` raises, having counted it."""
        found = self._exposed.scored(records)
        if found is None:
            return
        scored_ms = self._now_ms()
        with self._lock:
            for i, record in enumerate(found[0]):
                self._exposed.keep(record, scored_ms, {version: float(p[i]) for version, p in found[2].items()})

    def settle(self, records: Records) -> None:
        """Give the scores of the exposures of `samples` with their labels, once each. One that was scored after its sample stood is not:
        training might have known the label."""
        alike: dict[tuple[int, ...], list[tuple[float, Mapping[int, float]]]] = {}
        with self._lock:
            for by_version, positive, late in self._exposed.settled(records):
                if not late:
                    alike.setdefault(tuple(sorted(by_version)), []).append((float(positive), by_version))
        for names, rows in alike.items():
            scores = {name: np.array([by_version[name] for _, by_version in rows]) for name in names}
            self._take(np.array([label for label, _ in rows]), scores)
