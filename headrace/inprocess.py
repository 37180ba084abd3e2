"""The platform in one process: the engine's ranking over a feature shard, a trainer and a parameter shard, without Kafka and Flink.

What it serves is learnt as the stack learns it: an impression carries the features that it was ranked with, its sample is made of these
when the attribution window has closed, actions and impressions are folded when they happen. Time is the caller's.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from headrace.config import Features, Flink, Model
from headrace.engine.exposures import impressions
from headrace.engine.ranking import Ranked, Ranker
from headrace.engine.upstream import Upstream
from headrace.feature_set import transforms
from headrace.features.client import Assembled, FeatureClient
from headrace.features.events import EventBatch
from headrace.features.feature_set import BASE
from headrace.features.layout import NUMBERS
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.models.batch import Batch, merged, unique
from headrace.models.catalog import MODELS
from headrace.models.fm import probability
from headrace.models.train import Trainer, local_rate
from headrace.offline import RING, Parameters, Serving, causes_of
from headrace.ps.serving import Served
from headrace.streaming.model_inputs import inputs_of

_CTR = NUMBERS.index("item_ctr")
Record = dict[str, Any]
Pull = Callable[[str, str, np.ndarray], tuple[np.ndarray, int]]


class Held(NamedTuple):
    """Exposures of a request that wait for their window to close: inputs of the model, labels, offsets, the baseline's probability."""

    ready_ms: int
    batch: Batch
    offsets: np.ndarray
    popularity: np.ndarray


class Platform:
    """Opens a feature store in `folder`. `copied` True: what is served is a copy of the weights, taken by `refresh` and at the start; else
    what has been learnt is served at once. Calls come in order of event time, from one thread."""

    def __init__(self, folder: Path, model: Model, window_ms: int, *, copied: bool = False, batch_rows: int = Flink().train_batch_rows,
                 half_life_s: float = Features().half_life_s) -> None:
        self._store = FeatureStore(folder)
        self._shard = FeatureShard(self._store, half_life_s=half_life_s, ring_length=RING, frozen_offsets=4096)
        self.parameters = Parameters(model)
        self._serving: Parameters | Serving = self.parameters.copy() if copied else self.parameters
        inputs = inputs_of(BASE, transforms(model))
        self._learner = learner = MODELS[model.name](inputs.fields)
        self._trainer = Trainer(learner, self.parameters.pull, self.parameters.push, model.l2, model.window_offsets,
                                rate=local_rate(model.optimizer, model.learning_rate))
        self._features = _Features(self._shard)
        upstream = Upstream(cast(FeatureClient, self._features), _Served(self._pull), model.name)
        self._ranker, self._model = Ranker(upstream, learner, inputs), model.name
        self._window_ms, self._batch_rows = window_ms, batch_rows
        self._due: list[tuple[int, int, Record]] = []
        self._held: deque[Held] = deque()
        self._events = self._offset = 0

    def at(self, ts_ms: int) -> None:
        """Time is `ts_ms`: what is due is folded, samples whose window has closed are learnt in pushes of at most `batch_rows`."""
        records = []
        while self._due and self._due[0][0] <= ts_ms:
            records.append(heapq.heappop(self._due)[2])
        if records:
            self._fold(records)
        ready = []
        while self._held and self._held[0].ready_ms <= ts_ms:
            ready.append(self._held.popleft())
        if ready:
            self._learn(ready)

    def rank(self, user: str, items: Sequence[str], context: Mapping[str, str], ts_ms: int) -> Ranked:
        """The engine's scores of the items."""
        return self._ranker.score(user, items, context, ts_ms)

    def show(self, ranked: Ranked, top: Sequence[int], request_id: str, user: str, context: Mapping[str, str], ts_ms: int,
             actions: Sequence[Record], label: np.ndarray) -> None:
        """What was served at places `top` of `ranked`, and what will come of it: `actions` are folded at their times, `label` float32[n] is
        learnt when the window closes."""
        shown = [record for _, record in impressions(ranked, top, request_id, user, "feed", context, ts_ms, self._model)]
        first = self._offset
        self._fold(shown)
        for action in actions:
            self.later(action)
        at = np.asarray(top, np.int64)
        batch = Batch(ranked.keys[at], ranked.values[at], label.astype(np.float32), np.ones(len(at), np.float32))
        self._held.append(Held(ts_ms + self._window_ms, batch, np.arange(first, first + len(at)), ranked.assembled.numbers[at, _CTR]))

    def later(self, record: Record) -> None:
        """Fold an interaction at its ts_ms."""
        self._events += 1
        heapq.heappush(self._due, (record["ts_ms"], self._events, record))

    def refresh(self) -> None:
        """Serve a copy of what has been learnt by now."""
        self._serving = self.parameters.copy()

    def serve(self, weights: Parameters | Serving) -> None:
        """Serve these from now on: `parameters` is live, `parameters.copy()` a version."""
        self._serving = weights

    def shadow(self, ranked: Ranked, top: Sequence[int], weights: Parameters | Serving) -> np.ndarray:
        """float32[n]: what other weights say of places `top` of `ranked`."""
        at = np.asarray(top, np.int64)
        batch = Batch(ranked.keys[at], ranked.values[at], np.zeros(len(at), np.float32), np.ones(len(at), np.float32))
        keys, places = unique(batch)
        return probability(self._learner.predict(weights.pull(self._model, "weights", keys)[0], places, batch.values))

    def spoil(self, change: Callable[[Assembled], Assembled]) -> None:
        """From now on inputs come to ranking, and to training, as `change` gives them."""
        self._features.change = change

    def close(self) -> None:
        self._store.close()

    def _pull(self, model: str, table: str, keys: np.ndarray) -> tuple[np.ndarray, int]:
        return self._serving.pull(model, table, keys)

    def _fold(self, records: list[Record]) -> None:
        offsets = np.arange(self._offset, self._offset + len(records))
        self._offset += len(records)
        self._shard.freeze_and_fold(causes_of(offsets), EventBatch(records).columns)

    def _learn(self, ready: list[Held]) -> None:
        batch = merged([held.batch for held in ready])
        offsets = np.concatenate([held.offsets for held in ready])
        popularity = np.concatenate([held.popularity for held in ready])
        for start in range(0, len(batch), self._batch_rows):
            at = np.arange(start, min(start + self._batch_rows, len(batch)))
            self._trainer.learn(batch.take(at), causes_of(offsets[at]), popularity[at])


class _Features:
    """What Upstream asks of a features.client.FeatureClient, answered by the shard itself."""

    def __init__(self, shard: FeatureShard) -> None:
        self._shard, self.set = shard, shard.set
        self.change: Callable[[Assembled], Assembled] | None = None

    def assemble(self, user: np.ndarray, item: np.ndarray, context: np.ndarray, ts_ms: np.ndarray,
                 moment: np.ndarray | None = None) -> Assembled:
        found = Assembled(*self._shard.assemble(user, item, context, ts_ms, moment), self._shard.sequence)
        return found if self.change is None else self.change(found)


class _Served:
    """What Upstream asks for serving rows: `pull`, of whatever is served."""

    def __init__(self, pull: Pull) -> None:
        self._pull = pull

    def pull(self, model: str, table: str, keys: np.ndarray, deadline_s: float) -> Served:
        return Served(*self._pull(model, table, keys), age_ms=0)

    def reach(self) -> None:
        """It is here."""
