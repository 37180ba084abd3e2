"""The training job's Python stage: samples -> pull, predict, gradient, push, in one Arrow crossing.

The push returns before the function does, and Flink ends the bundle before its barrier passes: no unacknowledged row waits in Python
behind a checkpoint. What leaves is which users and items were touched, after the acknowledgement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext

from headrace.features.layout import FEATURE_SET, NUMBERS, SIDE, SLOTS, F, K
from headrace.models.batch import from_bytes
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.train import Trainer
from headrace.ps.client import ParameterClient
from headrace.rpc.causes import Causes
from headrace.streaming.featurize import Addresses
from headrace.streaming.stage import Stage, vectorised

RESULT = DataTypes.ROW([DataTypes.FIELD("user", DataTypes.BOOLEAN()), DataTypes.FIELD("item", DataTypes.BOOLEAN())])
_USER, _ITEM, _CTR = SLOTS.index("user_id"), SLOTS.index("item_id"), NUMBERS.index("item_ctr")


@dataclass(frozen=True)
class Lesson:
    """What is learnt: model name (of models.catalog), the target's label, L2, offsets of a metrics window, rate of learning in a push,
    share of the causes that a peer is compared on."""

    model: str
    target: str
    l2: float
    window_offsets: int
    rate: float = 0.0
    share: float = 0.0


class Learn(Stage):
    """A sample's cause, label, weight and features (see `eval`) -> ROW(user, item): whether the id comes first in this batch."""

    def __init__(self, addresses: Addresses, lesson: Lesson) -> None:
        self.addresses = addresses
        self.lesson = lesson

    def open(self, function_context: FunctionContext) -> None:
        client = ParameterClient(self.addresses.parameters)
        lesson = self.lesson
        self.trainer = Trainer(MODELS[lesson.model](fields_of(SLOTS, SIDE)), client.pull, client.push, l2=lesson.l2,
                               window_offsets=lesson.window_offsets, effect=lesson.target, rate=lesson.rate,
                               share=lesson.share)

    def eval(self, source: pd.Series, partition: pd.Series, offset: pd.Series, label: pd.Series, weight: pd.Series, feature_set: pd.Series,
             feature_keys: pd.Series, feature_values: pd.Series, numbers: pd.Series) -> pd.DataFrame:
        foreign = feature_set[feature_set != FEATURE_SET]
        if len(foreign):
            raise ValueError(f"a sample carries feature set {foreign.iloc[0]!r}, this job learns on {FEATURE_SET!r}")
        causes = Causes(source.to_numpy(np.int32), partition.to_numpy(np.int32), offset.to_numpy(np.int64))
        first = _first(causes)
        batch = from_bytes(feature_keys.tolist(), feature_values.tolist(), F, label.to_numpy(np.float32), weight.to_numpy(np.float32))
        popularity = np.frombuffer(b"".join(numbers.tolist()), np.float32).reshape(-1, K)[:, _CTR]
        self.trainer.learn(batch.take(first), causes.take(first), popularity[first])
        return pd.DataFrame({"user": _first_of(batch.keys[:, _USER]), "item": _first_of(batch.keys[:, _ITEM])})


def _first(causes: Causes) -> np.ndarray:
    """Row numbers of distinct causes, in order: upstream may repeat a cause within a batch, and a push names each once."""
    table = np.stack([causes.source.astype(np.int64), causes.partition.astype(np.int64), causes.offset], axis=1)
    return np.sort(np.unique(table, axis=0, return_index=True)[1])


def _first_of(keys: np.ndarray) -> np.ndarray:
    """bool[n], True at the first row of each distinct key."""
    marks = np.zeros(len(keys), bool)
    marks[np.unique(keys, return_index=True)[1]] = True
    return marks


def learn(addresses: Addresses, lesson: Lesson, ship: bool = False):
    """The vectorised, non-deterministic UDF `learn`."""
    return vectorised(Learn(addresses, lesson), RESULT, ship)
