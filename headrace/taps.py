"""Where a replay looks at the stack from outside: offsets and records of topics, and the stats of parameter and feature shards.

All callables, so that drain and report run against a stack, a test or a simulation alike. A `Mark` is what they said before the replay:
figures are differences to it, since a stack may have lived before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.models.progressive import MODEL, POPULARITY, keys_of
from headrace.schemas.topics import PROVISIONAL

Offsets = dict[int, int]
TOPICS = ("interactions", "enriched", "samples", "dead-letters")
SERIES = (MODEL, POPULARITY)
BLOCK_WINDOWS = 8


@dataclass(frozen=True)
class Taps:
    """highs(topic) -> next offset of each partition. read(topic, start, stop) -> decoded records, offsets from start to before stop.
    stats() -> the parameter shards' stats headers in shard order. retries() -> retries that the feature service has met.
    counts(keys uint64[n]) -> int64[n] of the model's table `metrics`. Of `samples` those of the model's target are read, and an exposure
    has one of each of `targets`."""

    model: str
    window_offsets: int
    highs: Callable[[str], Offsets]
    read: Callable[[str, Offsets, Offsets], Iterator[dict[str, Any]]]
    stats: Callable[[], list[dict[str, Any]]]
    retries: Callable[[], int]
    counts: Callable[[np.ndarray], np.ndarray]
    targets: int = 1

    def applied(self) -> list[int]:
        """Samples of the model that each shard has applied."""
        return [applied_of(header, self.model) for header in self.stats()]


@dataclass(frozen=True)
class Mark:
    """The stack before a replay."""

    offsets: dict[str, Offsets]
    applied: list[int]
    duplicates: int
    retries: int
    total: dict[int, np.ndarray] = field(default_factory=dict)
    windows: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, taps: Taps) -> Mark:
        offsets = {topic: taps.highs(topic) for topic in TOPICS}
        stats = taps.stats()
        begun = sorted({offset // taps.window_offsets for offset in offsets["interactions"].values()})
        return cls(offsets, [applied_of(header, taps.model) for header in stats], duplicates_of(stats), taps.retries(),
                   {series: taps.counts(keys_of(series)) for series in SERIES}, window_counts(taps, begun))


def window_counts(taps: Taps, windows: list[int]) -> dict[int, np.ndarray]:
    """The model's counts of each of `windows`."""
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(windows), BLOCK_WINDOWS):
        part = windows[start : start + BLOCK_WINDOWS]
        counts = taps.counts(np.concatenate([keys_of(MODEL, window) for window in part]))
        found.update(zip(part, np.split(counts, len(part)), strict=True))
    return found


def applied_of(header: dict[str, Any], model: str) -> int:
    """Causes whose final label a shard has applied for `model`, of its stats header; 0 before the model's tables are there."""
    held = header.get("models", {}).get(model, {})
    first = sum(count for effect, count in held.get("effects", {}).items() if effect.endswith(f".{PROVISIONAL}"))
    return int(held.get("applied", 0)) - int(first)


def duplicates_of(stats: list[dict[str, Any]]) -> int:
    """Duplicates that all shards have dropped."""
    return sum(int(header.get("duplicates", 0)) for header in stats)


def moved(now: Offsets, before: Offsets) -> int:
    """Offsets that a topic has grown by; holes and heartbeats counted too."""
    return sum(high - before.get(partition, 0) for partition, high in now.items())
