"""Replay without Kafka: rows to interactions to bytes, into a null sink; of encoding alone, over records that are there already."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.bench.result import Row
from headrace.replay import Record, replay
from headrace.rows import Rows
from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore


def measure(quick: bool) -> list[Row]:
    """One row, `replay.encode`: interactions/s, best of three."""
    rows = invented(20_000 if quick else 200_000)
    codec = Codec("interactions", SchemaStore(None))
    ready: list[Record] = []
    replay(rows, lambda key, record: ready.append(record))

    def whole() -> None:
        replay(rows, lambda key, record: codec.encode(record))

    def alone() -> None:
        for record in ready:
            codec.encode(record)

    return [Row("replay.encode", len(ready) / best_s(whole), "interactions/s", "fastavro encode of ready records",
                len(ready) / best_s(alone), f"{len(rows)} rows with 5 fields, one process")]


def invented(count: int, seed: int = 1) -> Rows:
    """Rows like MovieLens's: three fields of the user, two of the item, 55% positives."""
    random = np.random.default_rng(seed)

    def texts(prefix: str, kinds: int) -> pa.Array:
        return pa.array([f"{prefix}{n}" for n in random.integers(0, kinds, count).tolist()])

    features = {"user.age": texts("", 60), "user.gender": texts("", 2), "user.occupation": texts("job", 21),
                "item.genre": texts("Action|Comedy", 19), "item.year": texts("19", 99)}
    return Rows("00000000", "click", np.arange(count), 1_600_000_000_000 + np.arange(count) * 1000, random.random(count) < 0.55,
                texts("u", 943), texts("i", 1682), features)


def best_s(work: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
