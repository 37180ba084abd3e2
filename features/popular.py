"""The items clicked most of late, kept as events fold: no scan at a request.

Counts of all items fall by the same factor, so log2(clicks) + as_of / half_life orders items the same way at every moment and an item's
number changes only by its own clicks, upwards. The best N of it are exact without looking at the rest.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from headrace.features.layout import ITEM_ROW
from headrace.features.store import FeatureStore

KEPT, BLOCK = 8192, 1024


class Popular:
    """The best `kept` items by decayed clicks."""

    def __init__(self, half_life_ms: float, kept: int = KEPT) -> None:
        self._half_life_ms = half_life_ms
        self._kept = kept
        self._level: dict[int, float] = {}
        self.latest_ms = 0

    def fold(self, items: np.ndarray, rows: np.ndarray) -> None:
        """Take what changed: uint64[n] keys and ITEM_ROW[n] rows after the change."""
        if len(rows):
            self.latest_ms = max(self.latest_ms, int(rows["last_ts_ms"].max()))
        clicked = rows["clicks"] > 0
        self.forget(*items[~clicked].tolist())  # it may have begun anew
        rows = rows[clicked]
        levels = np.log2(rows["clicks"]) + rows["decayed_ts_ms"] / self._half_life_ms
        self._level.update(zip(items[clicked].tolist(), levels.tolist(), strict=True))
        if len(self._level) > 2 * self._kept:
            best = heapq.nlargest(self._kept, self._level.items(), key=lambda entry: entry[1])
            self._level = dict(best)

    def forget(self, *items: int) -> None:
        """Leave items out, until they are folded again."""
        for item in items:
            self._level.pop(item, None)

    def rebuild(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Fold (keys, rows) of every stored item."""
        for items, rows in blocks:
            self.fold(items, rows)

    def top(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(items uint64[m], clicks float32[m] decayed to the newest event time seen), best first, m <= k."""
        best = heapq.nlargest(min(k, self._kept), self._level.items(), key=lambda entry: entry[1])
        items = np.array([item for item, _ in best], np.uint64)
        levels = np.array([level for _, level in best], np.float64)
        return items, np.exp2(levels - self.latest_ms / self._half_life_ms).astype(np.float32)


def item_blocks(store: FeatureStore) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(keys uint64[n], ITEM_ROW[n]) of every item of a store."""
    held = store.scan("items")
    while part := list(itertools.islice(held, BLOCK)):
        keys, rows = zip(*part, strict=True)
        yield np.frombuffer(b"".join(keys), ">u8").astype(np.uint64), np.frombuffer(b"".join(rows), ITEM_ROW)
