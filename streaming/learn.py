"""The training job's Python stage: samples -> pull, predict, gradient, push, in one Arrow crossing.

The push returns before the function does, and Flink ends the bundle before its barrier passes: no unacknowledged row waits in Python
behind a checkpoint. What leaves is which users and items were touched, after the acknowledgement. A sample that cannot be learnt goes to
dead-letters under the event that it is of, and the rest of its push is learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext

from headrace.features.client import FeatureClient
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.known_sets import KnownSets
from headrace.features.layout import FEATURE_SET, SLOTS
from headrace.models.batch import Batch
from headrace.models.catalog import MODELS
from headrace.models.choice import EVERY, Choice
from headrace.models.inputs import Transform
from headrace.models.kernels import CONFIRMED, WHOLE
from headrace.models.kernels import PROVISIONAL as PROVISIONAL_STAGE
from headrace.models.train import NotFinite, Trainer
from headrace.ps.client import ParameterClient
from headrace.rpc.causes import Causes
from headrace.rpc.freshness import of_rows
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from headrace.schemas.topics import PROVISIONAL, provisional_effect, touched_topic
from headrace.streaming.featurize import Addresses
from headrace.streaming.masked import Masked
from headrace.streaming.model_inputs import inputs_of
from headrace.streaming.positions import Message, Standing
from headrace.streaming.sample_batch import Columns, of_now, shown, taken, wrong
from headrace.streaming.stage import WORLD, Stage, vectorised

RESULT = DataTypes.ROW([DataTypes.FIELD("user", DataTypes.BOOLEAN()), DataTypes.FIELD("item", DataTypes.BOOLEAN())])
_READ = ("source", "partition", "offset", "label", "weight", "feature_set", "feature_keys", "feature_values", "numbers")
LEFT_OUT = ("samples_of_inactive_users", "negatives_left_out")  # counters
_USER, _ITEM = SLOTS.index("user_id"), SLOTS.index("item_id")


@dataclass(frozen=True)
class Lesson:
    """What is learnt: model name (of models.catalog), the target's label, L2, offsets of a metrics window. `scored`: samples bring the
    score of their exposure, for the metrics; else they are scored on arrival, which only an order that tells no label makes fair. `rate`
    of learning in turn within a push; `share` of the causes that a peer is compared on; `transforms` of the feature set. `provisional`:
    samples are exposures whose label is not final. `several`: samples of other targets come too, each with its target behind its other
    columns; they are passed by and counted. `judged`: the last column tells clicks that count as none, for a counter. `choice` of the
    samples that are learnt."""

    model: str
    target: str
    l2: float
    window_offsets: int
    scored: bool = False
    rate: float = 0.0
    share: float = 0.0
    transforms: tuple[Transform, ...] = ()
    provisional: bool = False
    several: bool = False
    judged: bool = False
    choice: Choice = EVERY

    @property
    def name(self) -> str:
        """Of the stage, among the model's."""
        return f"train-{self.model}-{PROVISIONAL}" if self.provisional else f"train-{self.model}"

    @property
    def effect(self) -> str:
        """What a cause has at most once on a shard."""
        return provisional_effect(self.target) if self.provisional else self.target

    def stages(self, strategy: pd.Series | None, count: int) -> np.ndarray:
        """uint8[n] of models.kernels: how final the labels of samples are that `strategy` made (not read: of a strategy of one stage)."""
        if strategy is None:
            return np.full(count, PROVISIONAL_STAGE if self.provisional else WHOLE, np.uint8)
        return np.where(strategy.to_numpy() == "fast", CONFIRMED, WHOLE).astype(np.uint8)


class Learn(Stage):
    """A sample's cause, label, weight and features (see `eval`) -> ROW(user, item): whether the id comes first among what was learnt."""

    world = (*WORLD, NotFinite)

    def __init__(self, addresses: Addresses, lesson: Lesson, marks: str = "", standing: Standing | None = None,
                 feature_set: FeatureSet = BASE) -> None:
        super().__init__(marks, standing)
        self.addresses, self.set = addresses, feature_set
        self.inputs = inputs_of(feature_set, lesson.transforms)
        self.known: KnownSets | None = None
        self.masked: Callable[[], tuple[str, ...]] = tuple
        self.lesson = lesson

    def open(self, function_context: FunctionContext) -> None:
        lesson = self.lesson
        self.others = function_context.get_metric_group().counter("samples_of_other_targets")
        self.accidental = function_context.get_metric_group().counter("accidental_clicks")
        self.left_out = {name: function_context.get_metric_group().counter(name) for name in LEFT_OUT}
        self.guard(lesson.name)
        self.addresses.join()
        self.stand(self.addresses.kafka)
        registry = RegistryClient(self.addresses.registry)
        self.samples = Codec(PROVISIONAL if lesson.provisional else "samples", registry)
        self.touched = Codec(touched_topic(lesson.model).name, registry)
        self.masked = Masked(self.addresses.features).now
        client = ParameterClient(self.addresses.parameters)
        self.trainer = Trainer(MODELS[lesson.model](self.inputs.fields), client.pull, client.push, l2=lesson.l2,
                               window_offsets=lesson.window_offsets, effect=lesson.effect, rate=lesson.rate, share=lesson.share,
                               pull_tables=client.pull_tables, kept=lesson.choice.kept)

    def eval(self, at_partition: pd.Series, at_offset: pd.Series, *sample: pd.Series) -> pd.DataFrame:
        """Where the sample lies in its topic, then what `_learn` takes."""
        where, at = at_partition.to_numpy(np.int64), at_offset.to_numpy(np.int64)
        self.catch_up(where, at)
        made = self._own(*sample) if self.lesson.several or self.lesson.judged else self._learn(*sample)
        self.passed(where, at)
        return made

    def _own(self, *sample: pd.Series) -> pd.DataFrame:
        """`_learn` of the samples of the target, by the columns behind its own; the others touch nobody."""
        accidental = sample[-1].to_numpy(bool) if self.lesson.judged else np.zeros(len(sample[0]), bool)
        told = sample[:-1] if self.lesson.judged else sample
        mine = told[-1].to_numpy() == self.lesson.target if self.lesson.several else np.ones(len(accidental), bool)
        told = told[:-1] if self.lesson.several else told
        self.accidental.inc(int((accidental & mine).sum()))
        made = pd.DataFrame({"user": np.zeros(len(mine), bool), "item": np.zeros(len(mine), bool)})
        self.others.inc(int((~mine).sum()))
        if mine.any():
            made.loc[mine] = self._learn(*(column[mine].reset_index(drop=True) for column in told)).to_numpy()
        return made

    def again(self, messages: list[Message]) -> list[tuple[bytes | None, bytes]]:
        records = [record for record in self.decoded(self.samples, messages) if record["target"] == self.lesson.target]
        if not records:
            return []
        columns = [pd.Series([record[name] for record in records]) for name in _READ]
        scores = [pd.Series([record[name] for record in records]) for name in ("model", "score", "strategy")]
        columns = [*columns, pd.Series([_caused(record) for record in records]), *scores]
        made = self._learn(*columns)
        return [(record[f"{space}_id"].encode(), self.touched.encode({
            "source": record["source"], "partition": record["partition"], "offset": record["offset"], "space": space,
            "id": record[f"{space}_id"], "model": self.lesson.model, "ts_ms": record["ts_ms"], "caused_ms": _caused(record)}))
            for row, record in enumerate(records) for space in ("user", "item") if made[space][row]]

    def _learn(self, source: pd.Series, partition: pd.Series, offset: pd.Series, label: pd.Series, weight: pd.Series,
               feature_set: pd.Series, feature_keys: pd.Series, feature_values: pd.Series, numbers: pd.Series, caused_ms: pd.Series,
               model: pd.Series | None = None, score: pd.Series | None = None, strategy: pd.Series | None = None) -> pd.DataFrame:
        causes = Causes(source.to_numpy(np.int32), partition.to_numpy(np.int32), offset.to_numpy(np.int64))
        columns = Columns(label.to_numpy(np.float32), weight.to_numpy(np.float32), feature_set.tolist(), feature_keys.tolist(),
                          feature_values.tolist(), numbers.tolist())
        columns = self._of_now(columns)
        refused: dict[int, tuple[str, str]] = wrong(columns, self.set)
        first, number = _first(causes)
        first = first[~np.isin(first, list(refused))] if refused else first
        stage = self.lesson.stages(strategy if self.lesson.scored else None, len(causes))
        batch, popularity = taken(columns, first, self.inputs, self.masked())
        at, caused = causes.take(first), caused_ms.to_numpy(np.int64)[first]
        batch = self._chosen(batch.staged(stage[first]), at, lambda: shown(columns, first, self.inputs))
        scores = None
        if self.lesson.scored and score is not None and model is not None:
            scores = np.where(model.to_numpy() == self.lesson.model, score.to_numpy(np.float64, na_value=np.nan), np.nan)[first]

        def learn(rows: np.ndarray) -> None:
            part = at.take(rows)
            self.trainer.learn(batch.take(rows), part, popularity[rows], None if scores is None else scores[rows],
                               of_rows(*part, caused[rows]),
                               refuse=lambda row, detail: refuse(int(rows[row]), "non_finite_gradient", detail))

        def refuse(row: int, reason: str, detail: str) -> None:
            refused[int(first[row])] = (reason, detail)

        where = at.source.astype(np.int64) << 32 | at.partition
        self.quarantine.run(where, at.offset, learn, lambda row, detail: refuse(row, "poison_sample", detail))
        self._tell(causes, columns, refused)
        kept = ~np.isin(number, number[list(refused)]) if refused else np.ones(len(causes), bool)
        kept &= (stage != CONFIRMED) | (columns.label != 0)  # which moves nothing
        kept &= ~np.isin(number, number[first[batch.weight == 0]])
        user, item = np.zeros(len(causes), bool), np.zeros(len(causes), bool)
        rows = np.nonzero(kept)[0]
        keys = taken(columns, rows, self.inputs)[0].keys
        user[rows], item[rows] = _first_of(keys[:, _USER]), _first_of(keys[:, _ITEM])
        return pd.DataFrame({"user": user, "item": item})

    def _chosen(self, batch: Batch, causes: Causes, shown_before: Callable[[], np.ndarray]) -> Batch:
        """The batch with weight 0 for what is not learnt, which is counted."""
        choice = self.lesson.choice
        if choice == EVERY:
            return batch
        active = choice.active(batch.weight, shown_before())
        weight = choice.sampled(active, batch.label, causes)
        for name, before, after in zip(LEFT_OUT, (batch.weight, active), (active, weight), strict=True):
            self.left_out[name].inc(int(((before != 0) & (after == 0)).sum()))
        return batch.weighed(weight)

    def _of_now(self, columns: Columns) -> Columns:
        """Samples of sets from before as samples of this one. Only then the feature service is asked, which training does not need."""
        older = {name for name in columns.feature_set if name != self.set.name and name.startswith(FEATURE_SET)}
        if not older:
            return columns
        if self.known is None:
            features = FeatureClient(self.addresses.features, feature_set=self.set)
            try:
                self.known = features.known()
            finally:
                features.close()
        return of_now(columns, self.known)

    def _tell(self, causes: Causes, columns: Columns, refused: dict[int, tuple[str, str]]) -> None:
        """Dead letters under the event that the sample is of: where the sample itself lies is not known here."""
        for row, (reason, detail) in sorted(refused.items()):
            self.dead_letters.send("interactions", int(causes.partition[row]), int(causes.offset[row]), reason,
                                   f"its sample of target {self.lesson.target}: {detail}", columns.feature_values[row])
        if refused:
            self.dead_letters.flush()


def _caused(record: dict[str, Any]) -> int:
    """As the job's statement has it: when the target's action was, else the exposure."""
    at: int | None = record["action_ts_ms"]
    return int(record["ts_ms"]) if at is None else at


def _first(causes: Causes) -> tuple[np.ndarray, np.ndarray]:
    """(row numbers of distinct causes, in order; int64[n], equal for rows of one cause): upstream may repeat a cause within a batch, and a
    push names each once."""
    table = np.stack([causes.source.astype(np.int64), causes.partition.astype(np.int64), causes.offset], axis=1)
    _, rows, number = np.unique(table, axis=0, return_index=True, return_inverse=True)
    return np.sort(rows), number.reshape(-1)


def _first_of(keys: np.ndarray) -> np.ndarray:
    """bool[n], True at the first row of each distinct key."""
    marks = np.zeros(len(keys), bool)
    marks[np.unique(keys, return_index=True)[1]] = True
    return marks


def learn(addresses: Addresses, lesson: Lesson, ship: bool = False, marks: str = "", standing: Standing | None = None,
          feature_set: FeatureSet = BASE):
    """The vectorised, non-deterministic UDF `learn`."""
    return vectorised(Learn(addresses, lesson, marks, standing, feature_set), RESULT, ship)
