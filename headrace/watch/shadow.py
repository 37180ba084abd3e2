"""Scores of live and of every version on the same watched exposures, made before their label was known, and settled with it."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from headrace.models.batch import Batch, from_bytes
from headrace.watch.watcher import PENDING_MAX, Cause, Records, Share, cause_of

Scores = dict[int, np.ndarray]


class Waiting(NamedTuple):
    """When an exposure was scored, and its probability by version."""

    scored_ms: int
    by_version: dict[int, float]


class Shadow:
    """`score(batch)` gives float32[n] by version, 0 (live) among them; `take(label float64[n], the same of n settled ones)` is told of
    samples that were scored by the same versions. Two threads may call `expose` and `settle`. `outcomes`: as Watcher's."""

    def __init__(self, score: Callable[[Batch], Scores], take: Callable[[np.ndarray, Scores], Any], *, width: int, target: str,
                 share: float, rate_max: float, now_ms: Callable[[], int], clock_s: Callable[[], float]) -> None:
        self._score, self._take, self._width, self._target, self._now_ms = score, take, width, target, now_ms
        self._share = Share(share, rate_max, clock_s)
        self._waiting: OrderedDict[Cause, Waiting] = OrderedDict()
        self._lock = threading.Lock()
        self.outcomes = Counter(scored=0, capped=0, failed=0, late=0)

    def expose(self, records: Records) -> None:
        """Score the watched impressions of `enriched`. Raises what `score` raises, having counted it."""
        chosen, capped = self._share.chosen(records)
        self.outcomes["capped"] += capped
        if not chosen:
            return
        batch = from_bytes([record["feature_keys"] for record in chosen], [record["feature_values"] for record in chosen], self._width)
        try:
            scores = self._score(batch)
        except Exception:
            self.outcomes["failed"] += len(chosen)
            raise
        scored_ms = self._now_ms()
        with self._lock:
            for i, record in enumerate(chosen):
                self._waiting[cause_of(record)] = Waiting(scored_ms, {version: float(p[i]) for version, p in scores.items()})
            while len(self._waiting) > PENDING_MAX:
                self._waiting.popitem(last=False)

    def settle(self, records: Records) -> None:
        """Give the scores of the exposures of `samples` with their labels, once each. One that was scored after its sample stood is not:
        training might have known the label."""
        alike: dict[tuple[int, ...], list[tuple[float, Mapping[int, float]]]] = {}
        with self._lock:
            for appended_ms, record in records:
                held = self._waiting.pop(cause_of(record), None) if record["target"] == self._target else None
                if held is None:
                    continue
                late = held.scored_ms > appended_ms
                self.outcomes["late" if late else "scored"] += 1
                if not late:
                    alike.setdefault(tuple(sorted(held.by_version)), []).append((float(record["label"] >= 0.5), held.by_version))
        for names, rows in alike.items():
            scores = {name: np.array([by_version[name] for _, by_version in rows]) for name in names}
            self._take(np.array([label for label, _ in rows]), scores)
