"""Events for the tests of features: columns from short rows, stores that leave nothing behind."""

from __future__ import annotations

import numpy as np

from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.rpc.causes import Causes

T0 = 874_724_710_000  # 1997
HALF_LIFE_S = 3600.0
RING = 1 << 16


def shard_at(path, **settings) -> FeatureShard:
    return FeatureShard(FeatureStore(path), **({"half_life_s": HALF_LIFE_S, "ring_length": RING} | settings))


def columns(rows: list[dict]) -> tuple[Causes, dict[str, np.ndarray]]:
    """Rows of cause (source, partition, offset), and any of ts_ms, action, user, item, event, fields, context, served."""
    n = len(rows)

    def column(name: str, default: object, dtype: type, width: int | None = None) -> np.ndarray:
        values = [row.get(name, default) for row in rows]
        return np.array(values, dtype).reshape((n,) if width is None else (n, width))

    cause = np.array([row["cause"] for row in rows], np.int64).reshape(n, 3)
    causes = Causes(cause[:, 0].astype(np.int32), cause[:, 1].astype(np.int32), cause[:, 2].copy())
    return causes, {
        "ts_ms": column("ts_ms", T0, np.int64), "action": column("action", 1, np.uint8), "user": column("user", 1, np.uint64),
        "item": column("item", 1, np.uint64), "event": column("event", 0, np.uint64), "value": column("value", 1.0, np.float32),
        "user_fields": column("user_fields", (0,) * 4, np.uint64, 4), "item_fields": column("item_fields", (0,) * 6, np.uint64, 6),
        "context": column("context", (0,) * 4, np.uint64, 4), "served": column("served", 0, np.uint8)}


def random_rows(n: int, seed: int, *, users: int = 20, items: int = 30, first_offset: int = 0) -> list[dict]:
    """Impressions and actions in nearly the order of time, each its own event."""
    rng = np.random.default_rng(seed)
    return [{"cause": (7, int(rng.integers(2)), first_offset + i), "ts_ms": T0 + 1000 * i + int(rng.integers(5000)),
             "action": int(rng.choice([1, 1, 1, 2, 3, 7])), "user": int(rng.integers(1, users)), "item": int(rng.integers(1, items)),
             "event": first_offset + i + 1, "item_fields": [int(rng.integers(1, 9)), 0, 0, 0, 0, 0]} for i in range(n)]
