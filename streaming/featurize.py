"""The features job's Python stage: undecoded interactions -> enriched records, in one Arrow crossing.

Decode with guards, clamp event time, `freeze_and_fold` at the feature service, encode. What is refused goes to dead-letters with its
reason; a retry (its event was folded under another cause) gives no row.
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
from headrace.features.events import EventBatch
from headrace.features.frozen import Frozen
from headrace.features.layout import FEATURE_SET, IMPRESSION
from headrace.rpc.causes import Causes
from headrace.schemas.codec import Codec, Malformed, check_interaction
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

    def __init__(self, addresses: Addresses, source: int, event_bytes_max: int, scoring: Scoring | None = None) -> None:
        self.addresses = addresses
        self.source = source
        self.event_bytes_max = event_bytes_max
        self.scoring = scoring

    def open(self, function_context: FunctionContext) -> None:
        registry = RegistryClient(self.addresses.registry)
        self.interactions = Codec("interactions", registry)
        self.enriched = Codec("enriched", registry)
        self.features = FeatureClient(self.addresses.features)
        self.scorer = Scorer(self.scoring) if self.scoring else None
        self.dead_letters = DeadLetters(self.addresses.bootstrap, Codec("dead-letters", registry))
        self.clamped = function_context.get_metric_group().counter("event_time_clamped")
        self.retries = function_context.get_metric_group().counter("retries")

    def eval(self, key: pd.Series, value: pd.Series, partition: pd.Series, offset: pd.Series, append_ms: pd.Series) -> pd.DataFrame:
        keys: list[bytes | None] = [None] * len(value)
        values: list[bytes | None] = [None] * len(value)
        rows, records = self._decode(value, partition, offset)
        if rows:
            at = np.array(rows)
            self._clamp(records, append_ms.to_numpy(np.int64)[at])
            causes = Causes(np.full(len(rows), self.source, np.int32), partition.to_numpy(np.int32)[at], offset.to_numpy(np.int64)[at])
            for row, record, data in zip(rows, records, self._enrich(records, causes), strict=True):
                keys[row] = record["user_id"].encode() if record["action"] != "heartbeat" else key[row]
                values[row] = data
        return pd.DataFrame({"key": pd.Series(keys, dtype=object), "value": pd.Series(values, dtype=object)})

    def _decode(self, value: pd.Series, partition: pd.Series, offset: pd.Series) -> tuple[list[int], list[dict[str, Any]]]:
        """Rows that decode and make sense, with their records; the others are dead letters when this returns."""
        rows, records, refused = [], [], False
        for row, data in enumerate(value):
            try:
                record = self.interactions.decode(data if data is not None else b"", bytes_max=self.event_bytes_max)
                check_interaction(record)
            except Malformed as error:
                self.dead_letters.send("interactions", int(partition[row]), int(offset[row]), error.reason, error.detail, data or b"")
                refused = True
                continue
            rows.append(row)
            records.append(record)
        if refused:
            self.dead_letters.flush()
        return rows, records

    def _clamp(self, records: list[dict[str, Any]], append_ms: np.ndarray) -> None:
        """An event time ahead of the broker's append time becomes the append time: one fast clock must not close windows for all."""
        for record, limit in zip(records, append_ms.tolist(), strict=True):
            if record["ts_ms"] > limit + AHEAD_MS:
                record["ts_ms"] = limit
                self.clamped.inc()

    def _enrich(self, records: list[dict[str, Any]], causes: Causes) -> list[bytes | None]:
        """Encoded enriched records, None for a retry."""
        events = [i for i, record in enumerate(records) if record["action"] != "heartbeat"]
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


_COPIED = ("event_id", "request_id", "scene", "user_id", "item_id", "action", "value", "ts_ms")
_EMPTY: dict[str, Any] = {"feature_set": "", "feature_keys": b"", "feature_values": b"", "numbers": b"", "features_sequence": 0,
                          "model": None, "version": None, "score": None, "arms": []}


def featurize(addresses: Addresses, source: int, event_bytes_max: int, ship: bool = False, scoring: Scoring | None = None):
    """The vectorised, non-deterministic UDF `featurize`."""
    return vectorised(Featurize(addresses, source, event_bytes_max, scoring), RESULT, ship)
