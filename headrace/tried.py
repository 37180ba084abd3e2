"""Definitions tried on a log of the user's own, in this process: what each counts and says, without Kafka and Flink."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headrace.features.events import EventBatch
from headrace.features.feature_set import FeatureSet
from headrace.features.layout import IMPRESSION, F, K
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.models.inputs import mixed
from headrace.offline import RING, ROWS_A_CALL, causes_of
from headrace.replay import interactions
from headrace.rows import Rows
from headrace.schemas.hashing import feature_key


def tried(rows: Rows, feature_set: FeatureSet, half_life_s: float, last: int, moved: Callable[[int], Any],
          idle_s: float = 0.0) -> dict[str, Any]:
    """Fold `rows` in their order, as the stack does. `definitions`: of each how many events it counted and what exposures saw of it: blank
    (the share that saw nothing), and of numbers min, mean, max. `last`: what the last exposures saw, ids by name. Raises FunctionError."""
    counted = np.zeros(len(feature_set.definitions), np.int64)
    numbers, values, shown, names = [], [], [], dict[int, str]()
    with tempfile.TemporaryDirectory(prefix="headrace-tried-") as folder:
        store = FeatureStore(folder)
        shard, offset = FeatureShard(store, half_life_s=half_life_s, ring_length=RING, frozen_offsets=4096, feature_set=feature_set,
                                     idle_s=idle_s), 0
        try:
            for start in range(0, len(rows), ROWS_A_CALL):
                part = slice(start, min(start + ROWS_A_CALL, len(rows)))
                records = [record for _, *pair in interactions(rows, part) for record in pair if record is not None]
                events = EventBatch(records, feature_set)
                frozen = shard.freeze_and_fold(causes_of(np.arange(offset, offset + len(records))), events.columns)
                offset += len(records)
                x, y = (events.columns[name][:, : len(counted)] for name in "xy")
                counted += (~np.isnan(x) | ~np.isnan(y)).sum(axis=0)
                at = np.nonzero(events.columns["action"] == IMPRESSION)[0]
                numbers.append(frozen.numbers[at, K:])
                values.append(frozen.values[at, F:])
                if last:
                    names |= _named(feature_set, events)
                    shown += [(records[i], frozen.keys[i, F:], frozen.values[i, F:], frozen.numbers[i, K:]) for i in at[-last:].tolist()]
                    shown = shown[-last:]
                moved(part.stop)
        finally:
            store.close()
    seen = np.concatenate(numbers), np.concatenate(values)
    return {"rows": len(rows), "exposures": len(seen[0]), "definitions": _said(feature_set, counted, *seen),
            "last": [{"user": record["user_id"], "item": record["item_id"], "ts_ms": record["ts_ms"],
                      "features": _features(feature_set, row, names)} for record, *row in shown]}


def _said(feature_set: FeatureSet, counted: np.ndarray, numbers: np.ndarray, values: np.ndarray) -> list[dict[str, Any]]:
    said = []
    for d, one in enumerate(feature_set.definitions):
        row: dict[str, Any] = {"feature": one.identity, "counted": int(counted[d])}
        at, width = int(feature_set.column[d]), int(feature_set.width[d])
        if width:
            row |= {"blank": float((values[:, at] == 0).mean()), "ids": float((values[:, at : at + width] != 0).sum(axis=1).mean())}
        else:
            column = numbers[:, at].astype(np.float64)
            row |= {"blank": float((numbers[:, at] == np.float32(one.blank)).mean()), "min": float(column.min()),
                    "mean": float(column.mean()), "max": float(column.max())}
        said.append(row)
    return said


def _features(feature_set: FeatureSet, row: Sequence[np.ndarray], names: dict[int, str]) -> dict[str, Any]:
    """Of (keys, values, numbers) of the definitions' own."""
    (keys, values, numbers), found = row, dict[str, Any]()
    for d, one in enumerate(feature_set.definitions):
        at, width = int(feature_set.column[d]), int(feature_set.width[d])
        ids = [names.get(int(key), str(key)) for key, value in zip(keys[at : at + width], values[at : at + width], strict=True) if value]
        found[one.identity] = ids if width else float(numbers[at])
    return found


def _named(feature_set: FeatureSet, events: EventBatch) -> dict[int, str]:
    """What keys of slots mean: of each definition that gives ids, and each "field=value" of the events."""
    texts = events.names
    tokens = np.array([feature_key(*name.split("=", 1)) for name in texts], np.uint64)
    found: dict[int, str] = {}
    for seed in np.unique(feature_set.id_seeds):
        found.update(zip(mixed(seed, tokens).tolist(), (text.split("=", 1)[1] for text in texts), strict=True))
    return found
