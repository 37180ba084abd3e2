"""Impressions as the engine serves them: interactions that carry their features, score and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headrace.engine.ranking import Ranked

SERVING = "serving"  # layer of the arm that names a published version
Keyed = tuple[bytes, dict[str, Any]]


def event_id(request_id: str, position: int) -> str:
    """Of the impression at a position of what was served under `request_id`."""
    return f"{request_id}:{position}"


def impressions(ranked: Ranked, at: Sequence[int], request_id: str, user: str, scene: str, context: Mapping[str, str],
                ts_ms: int, model: str) -> list[Keyed]:
    """(key, interactions record) of the items at positions `at` of `ranked`, in the order served.

    A published version that served is an arm, "serving=N", as one day's experiments will be: so it travels with the exposure through all
    topics that there are. Without one the score is of the live model, at sequence `version`.
    """
    arms = [f"{SERVING}={ranked.weights.version}"] if ranked.weights.version else []
    records = []
    for position, i in enumerate(at):
        exposure = {
            "feature_set": ranked.assembled.feature_set,
            "feature_keys": np.ascontiguousarray(ranked.assembled.keys[i], "<u8").tobytes(),
            "feature_values": np.ascontiguousarray(ranked.assembled.values[i], "<f4").tobytes(),
            "numbers": np.ascontiguousarray(ranked.assembled.numbers[i], "<f4").tobytes(),
            "features_sequence": ranked.assembled.sequence, "model": model, "version": ranked.weights.sequence,
            "score": float(ranked.probabilities[i]), "arms": arms,
        }
        records.append((user.encode(), {
            "event_id": event_id(request_id, position), "request_id": request_id, "scene": scene, "user_id": user,
            "item_id": ranked.items[i], "action": "impression", "value": 1.0, "position": position, "ts_ms": ts_ms,
            "context": dict(context), "exposure": exposure}))
    return records
