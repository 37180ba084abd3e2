"""Ours and a peer on the same sampled share of the live stream, scored as they learn and as they serve.

As they learn: predict, then learn, sample by sample in the order of `samples`; ours is scored by training itself, in a series of metrics of
its own (models/progressive.py). As they serve: both predict when an impression comes out of the features job, before its sample exists,
ours with the serving weights of that moment. The sample comes a window later and settles both predictions. One that was made after its
sample stood in Kafka is not scored: training might have known the label. For that the watch's clock and the broker's must agree, as in the
local stack. A training job that lags shows here, and not in how it learns.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from headrace.models.batch import Batch, from_bytes
from headrace.models.progressive import BINS, LOSS_BIN, MICRO, SUM_BIN, bins_of, sampled, summary

Cause = tuple[int, int, int]
Records = Sequence[tuple[int, Mapping[str, Any]]]
"""Append time at the broker in ms, decoded record."""
PENDING_MAX = 100_000
_CLIP = 1e-7


class Learner(Protocol):
    """Predict, then learn one sample."""

    def predict(self, keys: np.ndarray, values: np.ndarray) -> float: ...

    def learn(self, keys: np.ndarray, values: np.ndarray, label: bool) -> None: ...


class Detectors(Protocol):
    """update(logloss, residual) -> (detector, of) of each that finds a drift."""

    def update(self, logloss: float, residual: float) -> list[tuple[str, str]]: ...


class Waiting(NamedTuple):
    """Predictions of a cause, when they were ready, and the sample to learn."""

    scored_ms: int
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


class Share:
    """The impressions that are watched: `share` of the causes, chosen by hash, at most `rate_max` a second of `clock_s`."""

    def __init__(self, share: float, rate_max: float, clock_s: Callable[[], float]) -> None:
        self._share, self._rate_max, self._clock_s = share, rate_max, clock_s
        self._left, self._filled_s = rate_max, clock_s()

    def chosen(self, records: Records) -> tuple[list[Mapping[str, Any]], int]:
        """Those with features among `records` of `enriched`, and how many the rate did not leave; a second's worth may come at once."""
        shown = [record for _, record in records if record["action"] == "impression" and record["feature_keys"]]
        if not shown:
            return [], 0
        source, partition, offset = (np.array(column) for column in zip(*map(cause_of, shown), strict=True))
        of_share = sampled(source, partition, offset, self._share)
        found = [record for record, wanted in zip(shown, of_share, strict=True) if wanted]
        now_s = self._clock_s()
        self._left = min(self._rate_max, self._left + (now_s - self._filled_s) * self._rate_max)
        self._filled_s = now_s
        taken = found[: int(self._left)]
        self._left -= len(taken)
        return taken, len(found) - len(taken)


class Watcher:
    """`score(batch) -> float32[n]` predicts with our serving weights, `learner` is the peer, `found` is told of each drift of ours.

    `share` of the causes are watched, chosen by hash, at most `rate_max` a second of `clock_s`; `now_ms` is the wall clock. Two threads may
    call `expose` and `settle`. `ours` and `theirs` are as they serve, `learner` is the peer as it learns. `outcomes`: scored; capped by the
    rate; failed, when `score` raised; late, predicted after the sample stood.
    """

    def __init__(self, score: Callable[[Batch], np.ndarray], learner: Learner, detectors: Detectors, found: Callable[[str, str], Any], *,
                 width: int, target: str, share: float, rate_max: float, now_ms: Callable[[], int], clock_s: Callable[[], float]) -> None:
        self._score, self._learner, self._detectors, self._found = score, learner, detectors, found
        self._width, self._target, self._now_ms = width, target, now_ms
        self._share = Share(share, rate_max, clock_s)
        self._waiting: OrderedDict[Cause, Waiting] = OrderedDict()
        self._lock = threading.Lock()
        self.ours, self.theirs, self.learner = Tally(), Tally(), Tally()
        self.outcomes = Counter(scored=0, capped=0, failed=0, late=0)

    def expose(self, records: Records) -> None:
        """Predict the sampled impressions of `enriched`. Raises what `score` raises, having counted it."""
        chosen, capped = self._share.chosen(records)
        self.outcomes["capped"] += capped
        if not chosen:
            return
        batch = from_bytes([record["feature_keys"] for record in chosen], [record["feature_values"] for record in chosen], self._width)
        try:
            ours = self._score(batch)
        except Exception:
            self.outcomes["failed"] += len(chosen)
            raise
        with self._lock:
            theirs = [self._learner.predict(keys, values) for keys, values in zip(batch.keys, batch.values, strict=True)]
            scored_ms = self._now_ms()
            for i, record in enumerate(chosen):
                self._waiting[cause_of(record)] = Waiting(scored_ms, float(ours[i]), theirs[i], batch.keys[i], batch.values[i])
            while len(self._waiting) > PENDING_MAX:
                self._waiting.popitem(last=False)

    def settle(self, records: Records) -> None:
        """Score what was predicted of the exposures of `samples`, once each, and let the peer learn them."""
        with self._lock:
            for appended_ms, record in records:
                held = self._waiting.pop(cause_of(record), None) if record["target"] == self._target else None
                if held is None:
                    continue
                positive = record["label"] >= 0.5
                if held.scored_ms > appended_ms:
                    self.outcomes["late"] += 1
                else:
                    self.outcomes["scored"] += 1
                    loss = self.ours.add(held.ours, positive)
                    self.theirs.add(held.theirs, positive)
                    for kind, of in self._detectors.update(loss, held.ours - positive):
                        self._found(kind, of)
                self.learner.add(self._learner.predict(held.keys, held.values), positive)
                self._learner.learn(held.keys, held.values, positive)


def cause_of(record: Mapping[str, Any]) -> Cause:
    return record["source"], record["partition"], record["offset"]

