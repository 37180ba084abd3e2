"""The vectors job's Python stage: touched ids -> pull -> vectors, in one Arrow crossing.

It is triggered by training's acknowledgement, so no vector from before the push is published. Features as they are now come from the
feature service, parameters from the training shards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext

from headrace.features.client import FeatureClient
from headrace.features.feature_set import BASE, FeatureSet
from headrace.models.batch import unique_keys
from headrace.models.inputs import Transform
from headrace.models.vectors import item_vectors, user_vectors
from headrace.ps.client import ParameterClient
from headrace.schemas.codec import Codec
from headrace.schemas.hashing import event_key, feature_key
from headrace.schemas.registry import RegistryClient
from headrace.schemas.topics import touched_topic
from headrace.streaming.featurize import Addresses
from headrace.streaming.kafka import DeadLetters
from headrace.streaming.model_inputs import inputs_of
from headrace.streaming.positions import Message, Standing
from headrace.streaming.stage import Stage, vectorised

RESULT = DataTypes.ROW([DataTypes.FIELD("vector", DataTypes.BYTES()), DataTypes.FIELD("sequence", DataTypes.BIGINT()),
                        DataTypes.FIELD("ts_ms", DataTypes.BIGINT())])
_SIDES = {"user": (1, user_vectors), "item": (2, item_vectors)}


class Vectorize(Stage):
    """(space, id, ts_ms) -> ROW(vector float32 bytes, sequence, ts_ms); null vector for an id that comes again later in the batch, and for
    one that is refused."""

    def __init__(self, addresses: Addresses, model: str, marks: str = "", standing: Standing | None = None,
                 feature_set: FeatureSet = BASE, transforms: Sequence[Transform] = ()) -> None:
        super().__init__(marks, standing)
        self.set, self.inputs = feature_set, inputs_of(feature_set, transforms)
        self.addresses = addresses
        self.model = model

    def open(self, function_context: FunctionContext) -> None:
        self.guard(f"vectors-{self.model}")
        self.addresses.join()
        registry = RegistryClient(self.addresses.registry)
        self.stand(self.addresses.kafka)
        self.touched, self.written = Codec(touched_topic(self.model).name, registry), Codec("vectors", registry)
        self.dead_letters = DeadLetters(self.addresses.kafka, Codec("dead-letters", registry))
        self.features = FeatureClient(self.addresses.features, feature_set=self.set)
        self.parameters = ParameterClient(self.addresses.parameters)
        self.newest = 0

    def eval(self, at_partition: pd.Series, at_offset: pd.Series, space: pd.Series, ids: pd.Series, touched_ms: pd.Series) -> pd.DataFrame:
        where, at = at_partition.to_numpy(np.int64), at_offset.to_numpy(np.int64)
        self.catch_up(where, at)
        vectors, sequences = self._make(space.tolist(), ids.tolist(), touched_ms.to_numpy(np.int64))
        self.passed(where, at)
        made_ms = np.full(len(vectors), int(time.time() * 1000), np.int64)
        return pd.DataFrame({"vector": pd.Series(vectors, dtype=object), "sequence": sequences, "ts_ms": made_ms})

    def again(self, messages: list[Message]) -> list[tuple[bytes | None, bytes]]:
        records = self.decoded(self.touched, messages)
        if not records:
            return []
        vectors, sequences = self._make([one["space"] for one in records], [one["id"] for one in records],
                                        np.array([one["ts_ms"] for one in records], np.int64))
        now = int(time.time() * 1000)
        return [(f"{one['space']}:{one['id']}".encode(), self.written.encode({
            "space": one["space"], "id": one["id"], "vector": vector, "deleted": False, "model": self.model, "sequence": sequence,
            "ts_ms": now, "source": one["source"], "partition": one["partition"], "offset": one["offset"], "caused_ms": one["caused_ms"]}))
            for one, vector, sequence in zip(records, vectors, sequences.tolist(), strict=True) if vector is not None]

    def _make(self, spaces: list[str], names: list[str], touched: np.ndarray) -> tuple[list[bytes | None], np.ndarray]:
        """A vector of each id at its last row here, and the sequence of its parameters int64[n]."""
        vectors: list[bytes | None] = [None] * len(names)
        sequences = np.zeros(len(names), np.int64)
        last = np.array(sorted({(where, one): row for row, (where, one) in enumerate(zip(spaces, names, strict=True))}.values()), np.int64)
        refused: list[tuple[int, str]] = []

        def make(rows: np.ndarray) -> None:
            for name in _SIDES:
                at = [row for row in last[rows].tolist() if spaces[row] == name]
                if at:
                    made, sequence = self._vectors(name, [names[row] for row in at], touched[at])
                    for vector, row in zip(made, at, strict=True):
                        vectors[row] = vector.tobytes()
                    sequences[at] = sequence

        # Of a touch only this is known here. The id's next touch is another one.
        touch = np.array([event_key(f"{spaces[row]}:{names[row]}:{touched[row]}") >> 1 for row in last.tolist()], np.int64)
        self.quarantine.run(np.zeros(len(last), np.int64), touch, make, lambda row, detail: refused.append((int(last[row]), detail)))
        for row, detail in refused:
            self.dead_letters.send(f"touched.{self.model}", -1, -1, "poison_touch",
                                   f"{spaces[row]} {names[row][:256]!r} of {touched[row]}: {detail}", names[row].encode())
        if refused:
            self.dead_letters.flush()
        return vectors, sequences

    def _vectors(self, space: str, ids: list[str], as_of_ms: np.ndarray) -> tuple[np.ndarray, int]:
        """float32[n,d] of `ids` and the parameters' sequence, read before the rows so that a vector is never called newer than it is."""
        side, make = _SIDES[space]
        keys = np.array([feature_key(f"{space}_id", one) for one in ids], np.uint64)
        none = np.zeros(len(ids), np.uint64)
        users, items = (keys, none) if space == "user" else (none, keys)
        answer = self.features.assemble(users, items, np.zeros((len(ids), 4), np.uint64), as_of_ms)
        wide, values = self.inputs.expand(answer.keys, answer.values, answer.numbers, answer.masked)
        slots = np.equal(self.inputs.side, side)
        wanted, index = unique_keys(np.ascontiguousarray(wide[:, slots]))
        rows, sequence = self.parameters.pull(self.model, "weights", wanted)
        # The lowest of the shards asked, and not every id asks the same ones: an index takes the higher of two, so it may not fall.
        self.newest = max(self.newest, sequence)
        return make(rows, index, np.ascontiguousarray(values[:, slots]), self.inputs.fields.of(slots)), self.newest


def vectorize(addresses: Addresses, model: str, ship: bool = False, marks: str = "", standing: Standing | None = None,
              feature_set: FeatureSet = BASE, transforms: Sequence[Transform] = ()):
    """The vectorised, non-deterministic UDF `vectorize`."""
    return vectorised(Vectorize(addresses, model, marks, standing, feature_set, transforms), RESULT, ship)
