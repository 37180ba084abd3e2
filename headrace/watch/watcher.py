"""Ours and a peer on the same sampled share of the live stream, scored as they learn and as they serve.

As they learn: predict, then learn, sample by sample in the order of `samples`; ours is scored by training itself, in a series of metrics of
its own (models/progressive.py). As they serve: both predict when an impression comes out of the features job, before its sample exists,
ours with the serving weights of that moment. The sample comes a window later and settles both predictions. One that was made after its
sample stood in Kafka is not scored: training might have known the label. For that the watch's clock and the broker's must agree, as in the
local stack. A training job that lags shows here, and not in how it learns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from headrace.models.batch import Batch
from headrace.models.inputs import Inputs
from headrace.models.progressive import BINS, LOSS_BIN, MICRO, SUM_BIN, bins_of, summary
from headrace.watch.exposed import Exposed, Records, Share

_CLIP = 1e-7


class Learner(Protocol):
    """Predict, then learn one sample."""

    def predict(self, keys: np.ndarray, values: np.ndarray) -> float: ...

    def learn(self, keys: np.ndarray, values: np.ndarray, label: bool) -> None: ...


class Detectors(Protocol):
    """update(logloss, residual) -> (detector, of) of each that finds a drift."""

    def update(self, logloss: float, residual: float) -> list[tuple[str, str]]: ...


class Waiting(NamedTuple):
    """Predictions of a cause, and the sample to learn."""

    ours: float
    theirs: float
    keys: np.ndarray
    values: np.ndarray


class Tally:
    """Progressive figures of one model, in the histograms of models/progressive.py."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, BINS + 2), np.int64)

    def add(self, probability: float, positive: bool) -> float:
        """Count a sample; its log-loss."""
        p = min(max(probability, _CLIP), 1 - _CLIP)
        loss = -float(np.log(p if positive else 1 - p))
        self._counts[int(positive), bins_of(np.array([p]))] += 1
        self._counts[int(positive), LOSS_BIN] += round(loss * MICRO)
        self._counts[int(positive), SUM_BIN] += round(p * MICRO)
        return loss

    def figures(self) -> dict[str, float | None]:
        """models.progressive.summary."""
        return summary(self._counts.reshape(-1))


class Watcher:
    """`score(batch) -> float32[n]` predicts with our serving weights, `learner` is the peer, `found` is told of each drift of ours.

    `share` of the causes are watched, chosen by hash, at most `rate_max` a second of `clock_s`; `now_ms` is the wall clock. Two threads may
    call `expose` and `settle`. `ours` and `theirs` are as they serve, `learner` is the peer as it learns. `outcomes`: scored; capped by the
    rate; failed, when `score` raised; late, predicted after the sample stood.
    """

    def __init__(self, score: Callable[[Batch], np.ndarray], learner: Learner, detectors: Detectors, found: Callable[[str, str], Any], *,
                 inputs: Inputs, target: str, share: float, rate_max: float, now_ms: Callable[[], int],
                 clock_s: Callable[[], float], masked: Callable[[], Sequence[str]] = tuple) -> None:
        self._learner, self._detectors, self._found, self._now_ms = learner, detectors, found, now_ms
        self._exposed = Exposed[np.ndarray, Waiting](score, Share(share, rate_max, clock_s), inputs, target,
                                                   masked)
        self._lock = threading.Lock()
        self.ours, self.theirs, self.learner = Tally(), Tally(), Tally()
        self.outcomes = self._exposed.outcomes

    def expose(self, records: Records) -> None:
        """Predict the sampled impressions of `enriched`. Raises what `score` raises, having counted it."""
        found = self._exposed.scored(records)
        if found is None:
            return
        chosen, batch, ours = found
        with self._lock:
            theirs = [self._learner.predict(keys, values) for keys, values in zip(batch.keys, batch.values, strict=True)]
            scored_ms = self._now_ms()
            for i, record in enumerate(chosen):
                self._exposed.keep(record, scored_ms, Waiting(float(ours[i]), theirs[i], batch.keys[i], batch.values[i]))

    def settle(self, records: Records) -> None:
        """Score what was predicted of the exposures of `samples`, once each, and let the peer learn them."""
        with self._lock:
            for held, positive, late in self._exposed.settled(records):
                if not late:
                    loss = self.ours.add(held.ours, positive)
                    self.theirs.add(held.theirs, positive)
                    for kind, of in self._detectors.update(loss, held.ours - positive):
                        self._found(kind, of)
                self.learner.add(self._learner.predict(held.keys, held.values), positive)
                self._learner.learn(held.keys, held.values, positive)
