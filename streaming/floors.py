"""The four jobs with functions in Python that do nothing: what Kafka, Flink and the crossing cost alone. `headrace bench pipeline` measures
beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pyflink.table import DataTypes

from headrace.streaming import features as features_job
from headrace.streaming import featurize, learn, samples, training, vectorize, vectors
from headrace.streaming.columns import names
from headrace.streaming.stage import Stage, vectorised
from headrace.streaming.tables import Connection

_VECTOR = bytes(36)


class Passed(Stage):
    """(key, value, ...) -> the value as it came."""

    def eval(self, key: pd.Series, value: pd.Series, *rest: pd.Series) -> pd.Series:
        return value


class Untaught(Stage):
    """A sample -> ROW(user, item): both, always."""

    def eval(self, source: pd.Series, *rest: pd.Series) -> pd.DataFrame:
        marks = np.ones(len(source), bool)
        return pd.DataFrame({"user": marks, "item": marks})


class Still(Stage):
    """(space, id, ts_ms) -> a vector of zeros."""

    def eval(self, space: pd.Series, ids: pd.Series, touched_ms: pd.Series) -> pd.DataFrame:
        return pd.DataFrame({"vector": pd.Series([_VECTOR] * len(ids), dtype=object), "sequence": np.zeros(len(ids), np.int64),
                             "ts_ms": touched_ms})


class Same(Stage):
    """A number -> itself."""

    def eval(self, number: pd.Series) -> pd.Series:
        return number


def floor(name: str, model: str, target: str) -> tuple[dict[str, object], list[str], list[str]]:
    """(functions, views, INSERTs) of job `name` with an identity for its function; the samples job, which has none, gets one."""
    if name == "features":
        return {"featurize": vectorised(Passed(), featurize.RESULT)}, [], [features_job.insert()]
    if name == "train":
        return {"learn": vectorised(Untaught(), learn.RESULT)}, [], [training.insert(model, target)]
    if name == "vectors":
        return {"vectorize": vectorised(Still(), vectorize.RESULT)}, [], [vectors.insert(model)]
    made = {"strategy": "'wait'", "target": f"'{target}'", "label": "0.0E0", "weight": "1.0E0", "actions": "''", "offset": "same(`offset`)",
            "action_ts_ms": "CAST(NULL AS BIGINT)"}
    columns = ", ".join(made.get(column, f"`{column}`") for column in names("samples"))
    insert = f"INSERT INTO samples SELECT `user_id`, {columns} FROM enriched WHERE `action` = 'impression'"
    return {"same": vectorised(Same(), DataTypes.BIGINT())}, [], [insert]


def tables(name: str, connection: Connection, model: str, out_of_orderness_ms: int) -> list[str]:
    """The tables of job `name`, read by a consumer group of its own."""
    made = {"features": lambda: features_job.tables(connection), "samples": lambda: samples.tables(connection, out_of_orderness_ms),
            "train": lambda: training.tables(connection, model), "vectors": lambda: vectors.tables(connection, model)}[name]()
    return [statement.replace("'properties.group.id' = 'headrace-", "'properties.group.id' = 'headrace-floor-") for statement in made]
