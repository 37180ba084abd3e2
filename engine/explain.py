"""Why an item has its score: what each slot adds, and how old the state behind it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.engine.ranking import Ranked
from headrace.engine.upstream import Upstream
from headrace.features.client import Assembled
from headrace.models.catalog import Model
from headrace.models.inputs import Inputs
from headrace.rpc.freshness import Newest


def contributions(ranked: Ranked, at: Sequence[int], model: Model, inputs: Inputs, upstream: Upstream) -> list[list[dict[str, Any]]]:
    """For each of the items at positions `at` of `ranked`, its slots with a value: slot, key, name ("field=value", None where it was never
    named), value, linear (w x) and pairs (half of the slot's pairs), in log-odds. All of an item's linear and pairs add up to its logit."""
    chosen = np.asarray(at, np.int64)
    keys, values = ranked.keys[chosen], ranked.values[chosen]
    linear, pairs = model.contributions(ranked.weights.rows, ranked.index[chosen], values)
    distinct = np.unique(keys)
    names = dict(zip(distinct.tolist(), upstream.features.resolve(distinct), strict=True)) if len(distinct) else {}
    return [[{"slot": inputs.slots[f], "key": str(keys[i, f]), "name": names[int(keys[i, f])], "value": float(values[i, f]),
              "linear": float(linear[i, f]), "pairs": float(pairs[i, f])}
             for f in range(keys.shape[1]) if values[i, f] != 0] for i in range(len(chosen))]


def seen(assembled: Assembled, at: int, upstream: Upstream) -> list[dict[str, Any]]:
    """Every slot of the feature set with a value, of row `at`: slot, key, name, value."""
    keys, values = assembled.keys[at], assembled.values[at]
    names = upstream.features.resolve(keys)
    slots = upstream.features.set.slots
    return [{"slot": slots[f], "key": str(keys[f]), "name": names[f], "value": float(values[f])} for f in np.flatnonzero(values).tolist()]


def numbers(assembled: Assembled, at: int, upstream: Upstream) -> dict[str, float]:
    """Every number of the feature set, of row `at`."""
    return dict(zip(upstream.features.set.numbers, assembled.numbers[at].tolist(), strict=True))


def told(newest: Newest | None) -> dict[str, int] | None:
    """The newest cause as JSON: source, partition, offset, ts_ms."""
    return None if newest is None else newest._asdict()


def state(ranked: Ranked, model: str) -> dict[str, Any]:
    """What the scores were computed on: anyone can compute them again from it."""
    weights = ranked.weights
    served = {"sequence": weights.sequence, "age_ms": weights.age_ms, "newest": told(weights.newest)}
    return {"features_sequence": ranked.assembled.sequence, "weights": served,
            "model": model, "version": weights.sequence, "serving_version": weights.version}
