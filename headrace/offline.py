"""A log learnt in this process: the stack's own features, models and parameter server, without Kafka, Flink and the network.

What the stack reaches on the same log must equal it within 0.005 of AUC: the stack's pushes fall elsewhere, and its partitions run side
by side. The log itself is in memory, the feature shard in a temporary folder; nothing is left behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from headrace.config import Features, Model
from headrace.features.events import EventBatch
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.layout import IMPRESSION, NUMBERS
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.models.batch import Batch, merged
from headrace.models.catalog import MODELS
from headrace.models.choice import EVERY, Choice
from headrace.models.inputs import Inputs, transforms_of
from headrace.models.progressive import MODEL, POPULARITY, keys_of, summary
from headrace.models.spec import model_spec
from headrace.models.train import Trainer, Updates, local_rate
from headrace.ps.encoding import served_as
from headrace.ps.replica import Replica
from headrace.ps.shard import APPLIED, Shard
from headrace.ps.spec import ModelSpec
from headrace.replay import interactions
from headrace.rows import Rows
from headrace.rpc.causes import Causes
from headrace.streaming.model_inputs import inputs_of

ROWS_A_CALL = 2048
ROWS_MAX = 20_000_000  # address space only
RING = 1 << 16  # offsets come in order, one push after the other
_CTR, _SHOWN = NUMBERS.index("item_ctr"), NUMBERS.index("user_impressions")
_GOLDEN = 0x9E3779B97F4A7C15
Part = tuple[Batch, Causes, np.ndarray]
"""Samples, a cause and the baseline's probability (popularity float32[n]) each."""


def run(rows: Rows, model: Model, batch_rows: int, seed: int = 0, *, half_life_s: float = Features().half_life_s,
        idle_s: float = 0.0, feature_set: FeatureSet = BASE, masked: Sequence[str] = (),
        moved: Callable[[int], Any] = lambda rows: None) -> dict[str, Any]:
    """Learn `rows` in their order with pushes of `batch_rows` samples; the figures of model and popularity, as a replay reports them.

    `seed` other than 0 starts the factors elsewhere, to see how much chance there is in a figure. `masked`: features that the model reads
    as their defaults. `moved` is told the rows done. Raises TransformError, and FunctionError of a definition.
    """
    parameters, inputs = Parameters(model), inputs_of(feature_set, transforms_of(model.transforms))
    learn(samples(rows, half_life_s, inputs, feature_set, masked, idle_s=idle_s), parameters, model, batch_rows, seed, moved, inputs)
    figures, baseline = parameters.summary(MODEL), parameters.summary(POPULARITY)
    return {"samples": figures["samples"], "auc": figures["auc"], "auc_popularity": baseline["auc"], "logloss": figures["logloss"],
            "logloss_base_rate": figures["logloss_base_rate"], "calibration": figures["calibration"]}


def learn(parts: Iterable[Part], parameters: Parameters, model: Model, batch_rows: int, seed: int = 0,
          moved: Callable[[int], Any] = lambda rows: None, inputs: Inputs | None = None) -> np.ndarray:
    """Predict, then learn `parts`, which are of `inputs` (by default the built-in features), as `run` does; probabilities float32[n], each
    as it was before its sample was learnt."""
    trainer = Trainer(MODELS[model.name]((inputs or inputs_of()).fields), parameters.pull, parameters.push, l2=model.l2,
                      window_offsets=model.window_offsets, rate=local_rate(model.optimizer, model.learning_rate))
    salt = np.uint64(seed * _GOLDEN % (1 << 64))
    held: list[Part] = []
    predicted = [np.empty(0, np.float32)]
    done = 0
    for part in chain(parts, [None]):
        if part is not None:
            held.append(part)
        batch, causes, popularity = joined(held)
        whole = len(batch) if part is None else len(batch) - len(batch) % batch_rows
        for start in range(0, whole, batch_rows):
            at = np.arange(start, min(start + batch_rows, whole))
            predicted.append(trainer.learn(Batch(batch.keys[at] ^ salt, *batch.take(at)[1:]), causes.take(at), popularity[at]))
        rest = np.arange(whole, len(batch))
        held = [(batch.take(rest), causes.take(rest), popularity[rest])]
        done += whole
        moved(done)
    return np.concatenate(predicted)


def samples(rows: Rows, half_life_s: float, inputs: Inputs | None = None, feature_set: FeatureSet = BASE,
            masked: Sequence[str] = (), choice: Choice = EVERY, idle_s: float = 0.0) -> Iterator[Part]:
    """(batch, causes, popularity float32[n]) of successive rows: each frozen before it and its action are folded, as in the stack, then
    made a model's by `inputs` of the feature set, `masked` features as their defaults. Weights say who is active by `choice`."""
    inputs = inputs or inputs_of(feature_set)
    with tempfile.TemporaryDirectory(prefix="headrace-offline-") as folder:
        store = FeatureStore(folder)
        shard = FeatureShard(store, half_life_s=half_life_s, ring_length=RING, frozen_offsets=4096, feature_set=feature_set,
                             idle_s=idle_s)
        offset = 0
        try:
            for start in range(0, len(rows), ROWS_A_CALL):
                part = slice(start, min(start + ROWS_A_CALL, len(rows)))
                records = [record for _, *pair in interactions(rows, part) for record in pair if record is not None]
                causes = causes_of(np.arange(offset, offset + len(records)))
                events = EventBatch(records, feature_set).columns
                frozen = shard.freeze_and_fold(causes, events)
                shown = events["action"] == IMPRESSION
                label = rows.label[part].astype(np.float32)
                expanded = inputs.expand(frozen.keys[shown], frozen.values[shown], frozen.numbers[shown], masked)
                weight = choice.active(np.ones(len(label), np.float32), frozen.numbers[shown, _SHOWN])
                batch = Batch(*expanded, label, weight)
                yield batch, causes.take(shown), frozen.numbers[shown, _CTR]
                offset += len(records)
        finally:
            store.close()


class Parameters:
    """One shard of the parameter server, called directly; it keeps no log, since nothing outlives the process."""

    def __init__(self, model: Model, params: Mapping[str, float] | None = None) -> None:
        """`params`: parameters of the optimizer beside the learning rate (ps/optimizers.py)."""
        self._name = model.name
        spec = model_spec(model.name, model.version, model.factors, model.optimizer, model.learning_rate, model.init_scale,
                      model.room)
        spec["tables"][0]["params"].update(params or {})
        self._shard = Shard([ModelSpec.from_json(spec)], 0, 1, ROWS_MAX, RING)
        self._shard.log = _Unlogged()  # type: ignore[assignment]

    def pull(self, model: str, table: str, keys: np.ndarray) -> tuple[np.ndarray, int]:
        return self._shard.pull(model, table, keys), self._shard.sequence

    def push(self, model: str, effect: str, causes: Causes, compute: Callable[[np.ndarray], Updates],
             newest: object = None) -> None:
        pushed = self._shard.push(model, effect, causes, compute(np.arange(len(causes))))
        assert pushed.status == APPLIED, "every cause comes once"

    def copy(self) -> Serving:
        """What a replica would serve now, and go on serving until it is told more: a fold of all that has changed so far."""
        return Serving(self._shard)

    def summary(self, series: int) -> dict[str, float | None]:
        """Figures of a series of the metrics, in total."""
        return summary(self.pull(self._name, "metrics", keys_of(series))[0][:, 0])


class Serving:
    """A replica (ps/replica.py) of a shard's served tables as they were when this was made."""

    def __init__(self, shard: Shard) -> None:
        self._replica = Replica(shard.specs.values(), 1, ROWS_MAX, lambda: 0)
        for (model, name), held in self._replica.held.items():
            table = shard.table(model, name)
            for keys, weights in table.pages():
                held.table.put(keys, served_as(weights, table.spec.encoding))
        self._sequence = shard.sequence

    def pull(self, model: str, table: str, keys: np.ndarray) -> tuple[np.ndarray, int]:
        return self._replica.pull(model, table, keys), self._sequence


class _Unlogged:
    def append(self, sequence: int, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Nothing."""


def causes_of(offsets: np.ndarray) -> Causes:
    """Causes of one source and partition at offsets int64[n]."""
    return Causes(np.ones(len(offsets), np.int32), np.zeros(len(offsets), np.int32), offsets.astype(np.int64))


def joined(parts: Iterable[Part]) -> Part:
    """Successive parts as one."""
    batches, causes, popularity = zip(*parts, strict=True)
    return (merged(batches), Causes(*map(np.concatenate, zip(*causes, strict=True))),
            np.concatenate(popularity))
