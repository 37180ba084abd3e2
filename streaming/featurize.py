"""The features job's Python stage: undecoded interactions -> enriched records, in one Arrow crossing.

Decode with guards, clamp event time, `freeze_and_fold` at the feature service, encode. What is refused goes to dead-letters with its
reason; a retry (its event was folded under another cause) gives no row. An event that kills the worker or fails it is left out
(streaming/quarantine.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext

from headrace.features.client import FeatureClient
from headrace.features.events import EventBatch, check_features
from headrace.features.frozen import Frozen
from headrace.features.layout import FEATURE_SET, IMPRESSION
from headrace.rpc.causes import Causes
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed
from headrace.schemas.interaction import HEARTBEAT, check_interaction
from headrace.schemas.registry import RegistryClient
from headrace.streaming.kafka import DeadLetters
from headrace.streaming.scoring import Scorer, Scoring
from headrace.streaming.stage import Stage, vectorised

RESULT = DataTypes.ROW([DataTypes.FIELD("key", DataTypes.BYTES()), DataTypes.FIELD("value", DataTypes.BYTES())])
AHEAD_MS = 1000
RETRY = 2


@dataclass(frozen=True)
class Addresses:
    """What a Python worker connects to."""

    bootstrap: str
    registry: str
    features: str
    parameters: Sequence[str] = ()


class Featurize(Stage):
    """(key, value, partition, offset, timestamp) of interactions -> ROW(key, value) of enriched; null value: nothing to write."""

    def __init__(self, addresses: Addresses, source: int, event_bytes_max: int, scoring: Scoring | None = None, marks: str = "") -> None:
        super().__init__(marks)
        self.addresses = addresses
        self.source = source
        self.event_bytes_max = event_bytes_max
        self.scoring = scoring

    def open(self, function_context: FunctionContext) -> None:
        self.guard(f"features-{self.source}")
        registry = RegistryClient(self.addresses.registry)
        self.interactions = Codec("interactions", registry)
        self.enriched = Codec("enriched", registry)
        self.features = FeatureClient(self.addresses.features)
        self.scorer = Scorer(self.scoring) if self.scoring else None
        self.dead_letters = DeadLetters(self.addresses.bootstrap, Codec("dead-letters", registry))
        self.clamped = function_context.get_metric_group().counter("event_time_clamped")
        self.retries = function_context.get_metric_group().counter("retries")

    def eval(self, key: pd.Series, value: pd.Series, partition: pd.Series, offset: pd.Series, append_ms: pd.Series) -> pd.DataFrame:
        call = _Call(key.tolist(), value.tolist(), partition.to_numpy(np.int32), offset.to_numpy(np.int64), append_ms.to_numpy(np.int64))
        self.quarantine.run(call.partition.astype(np.int64), call.offset, lambda rows: self._work(call, rows),
                            lambda row, detail: self._refuse(call, row, Malformed("poison", detail)))
        if call.refused:
            self._post(call)
            self.dead_letters.flush()
        return pd.DataFrame({"key": pd.Series(call.keys, dtype=object), "value": pd.Series(call.values, dtype=object)})

    def _work(self, call: _Call, chosen: np.ndarray) -> None:
        """Fill in the answer of the `chosen` rows. Those that are wrong have their dead letters on the way when this returns."""
        rows, records = self._decode(call, chosen)
        self._post(call)
        if not rows:
            return
        at = np.array(rows)
        self._clamp(records, call.append_ms[at])
        causes = Causes(np.full(len(rows), self.source, np.int32), call.partition[at], call.offset[at])
        for row, record, data in zip(rows, records, self._enrich(records, causes), strict=True):
            call.keys[row] = record["user_id"].encode() if record["action"] != HEARTBEAT else call.key[row]
            call.values[row] = data

    def _decode(self, call: _Call, chosen: np.ndarray) -> tuple[list[int], list[dict[str, Any]]]:
        """Rows that decode and make sense, with their records."""
        rows, records = [], []
        for row in chosen.tolist():
            try:
                record = self.interactions.decode(call.value[row], bytes_max=self.event_bytes_max)
                check_interaction(record)
                if record["exposure"] is not None:
                    check_features(record["exposure"])
                if call.key[row] != record["user_id"].encode() and record["action"] != HEARTBEAT:
                    raise Malformed("wrong_key", f"the key is {_shown(call.key[row])}, user_id is {record['user_id'][:80]!r}")
            except Malformed as error:
                self._refuse(call, row, error)
                continue
            rows.append(row)
            records.append(record)
        return rows, records

    def _refuse(self, call: _Call, row: int, error: Malformed) -> None:
        if row not in call.refused:  # a batch that is cut after a failure is decoded again
            call.refused.add(row)
            call.letters.append((row, error))

    def _post(self, call: _Call) -> None:
        """All letters so far in one go: one request to the broker, which answers while the good events are folded."""
        for row, error in call.letters:
            self.dead_letters.send("interactions", int(call.partition[row]), int(call.offset[row]), error.reason, error.detail,
                                   call.value[row] or b"")
        call.letters.clear()

    def _clamp(self, records: list[dict[str, Any]], append_ms: np.ndarray) -> None:
        """An event time ahead of the broker's append time becomes the append time: one fast clock must not close windows for all."""
        for record, limit in zip(records, append_ms.tolist(), strict=True):
            if record["ts_ms"] > limit + AHEAD_MS:
                record["ts_ms"] = limit
                self.clamped.inc()

    def _enrich(self, records: list[dict[str, Any]], causes: Causes) -> list[bytes | None]:
        """Encoded enriched records, None for a retry."""
        events = [i for i, record in enumerate(records) if record["action"] != HEARTBEAT]
        frozen: dict[int, int] = {}
        batch = EventBatch([records[i] for i in events])
        if events:
            self.features.names(batch.names)
            answer = self.features.freeze_and_fold(causes.take(np.array(events)), batch)
            frozen = {i: row for row, i in enumerate(events)}
            scores = self._scores(batch, answer)
        encoded: list[bytes | None] = []
        for i, record in enumerate(records):
            row = frozen.get(i)
            if row is not None and answer.status[row] == RETRY:
                self.retries.inc()
                encoded.append(None)
                continue
            cause = {"source": self.source, "partition": int(causes.partition[i]), "offset": int(causes.offset[i])}
            made = {name: record[name] for name in _COPIED} | cause
            if row is not None:
                made["features_sequence"] = int(answer.sequence[row])
            if record["exposure"]:
                made |= record["exposure"]  # model, version and score as served; its features too when they are a whole sample
            if record["action"] == "impression" and row is not None and not batch.columns["served"][row]:
                made |= {"feature_set": FEATURE_SET, "feature_keys": answer.keys[row].tobytes(),
                         "feature_values": answer.values[row].tobytes(), "numbers": answer.numbers[row].tobytes(), **scores.get(row, {})}
            encoded.append(self.enriched.encode(_EMPTY | made))
        return encoded


    def _scores(self, batch: EventBatch, answer: Frozen) -> dict[int, dict[str, Any]]:
        """model, version and score of the exposures frozen in this batch, by row; none without a scorer, or while nobody answers it."""
        if self.scorer is None:
            return {}
        rows = np.nonzero((batch.columns["action"] == IMPRESSION) & (batch.columns["served"] == 0) & (answer.status != RETRY))[0]
        made = self.scorer.score(answer.keys[rows], answer.values[rows])
        if made is None:
            return {}
        return {row: {"model": self.scorer.model, "version": made[1], "score": score}
                for row, score in zip(rows.tolist(), made[0].tolist(), strict=True)}


class _Call:
    """The rows of one call, and their answer as it grows."""

    def __init__(self, key: list[bytes | None], value: list[bytes | None], partition: np.ndarray, offset: np.ndarray,
                 append_ms: np.ndarray) -> None:
        self.key, self.value, self.partition, self.offset, self.append_ms = key, value, partition, offset, append_ms
        self.keys: list[bytes | None] = [None] * len(value)
        self.values: list[bytes | None] = [None] * len(value)
        self.refused: set[int] = set()
        self.letters: list[tuple[int, Malformed]] = []


def _shown(key: bytes | None) -> str:
    return "missing" if key is None else repr(key[:80])


_COPIED = ("event_id", "request_id", "scene", "user_id", "item_id", "action", "value", "ts_ms")
_EMPTY: dict[str, Any] = {"feature_set": "", "feature_keys": b"", "feature_values": b"", "numbers": b"", "features_sequence": 0,
                          "model": None, "version": None, "score": None, "arms": []}


def featurize(addresses: Addresses, source: int, event_bytes_max: int, ship: bool = False, scoring: Scoring | None = None,
              marks: str = ""):
    """The vectorised, non-deterministic UDF `featurize`."""
    return vectorised(Featurize(addresses, source, event_bytes_max, scoring, marks), RESULT, ship)
