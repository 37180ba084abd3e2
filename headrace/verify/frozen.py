"""Frozen features against a run without kills: the same events, folded by the product's own shard in the order that it recorded.

Item rows are fed by several partitions, so the order of two runs differs; but every event carries the shard's sequence from before it was
folded, so anybody can compute again what it must have been frozen with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace.config import Features
from headrace.features.events import EventBatch
from headrace.features.frozen import Frozen
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.rpc.causes import Causes
from headrace.verify.counts import Cause, Check, Record, check

BLOCK = 2048


def compare(enriched: dict[Cause, Record], interactions: dict[tuple[int, int], Record], settings: Features) -> list[Check]:
    """Frozen features that differ from those of a run without kills, and holes or repeats in the recorded order.

    `enriched`: the first record by cause; `interactions`: what producers sent, by (partition, offset), with columns and context.
    """
    order = sorted(enriched, key=lambda cause: enriched[cause]["features_sequence"])
    sequences = [enriched[cause]["features_sequence"] for cause in order]
    misplaced = sum(at != sequence for at, sequence in enumerate(sequences))
    differing = frozen = 0
    for causes, answer in _folded(order, enriched, interactions, settings):
        for row, cause in enumerate(causes):
            record = enriched[cause]
            if record["action"] == "impression":
                frozen += 1
                differing += any(record[name] != column[row].tobytes() for name, column in (
                    ("feature_keys", answer.keys), ("feature_values", answer.values), ("numbers", answer.numbers)))
    return [check("events whose recorded sequence is not their place", misplaced, 0),
            check("exposures whose frozen features differ from a run without kills", differing, 0),
            check("exposures compared", frozen, sum(record["action"] == "impression" for record in enriched.values()))]


def _folded(order: list[Cause], enriched: dict[Cause, Record], interactions: dict[tuple[int, int], Record],
            settings: Features) -> Iterator[tuple[list[Cause], Frozen]]:
    with tempfile.TemporaryDirectory(prefix="headrace-verify-") as folder:
        store = FeatureStore(folder)
        shard = FeatureShard(store, half_life_s=settings.half_life_s, ring_length=settings.ring_length, idle_s=settings.idle_s)
        try:
            for start in range(0, len(order), BLOCK):
                part = order[start : start + BLOCK]
                events = EventBatch([_as_folded(interactions[cause[1:]], enriched[cause]) for cause in part])
                columns = np.array(part, np.int64)
                causes = Causes(columns[:, 0].astype(np.int32), columns[:, 1].astype(np.int32), columns[:, 2].copy())
                yield part, shard.freeze_and_fold(causes, events.columns)
        finally:
            store.close()


def _as_folded(sent: dict[str, Any], enriched: Record) -> dict[str, Any]:
    """The event as the features job folded it: its time may have been clamped."""
    return {**sent, "ts_ms": enriched["ts_ms"]}
