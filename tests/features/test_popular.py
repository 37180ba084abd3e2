"""The order of popular items, as a scan of all rows would give it."""

from __future__ import annotations

import numpy as np

from headrace.features.layout import ITEM_ROW
from headrace.features.popular import Popular
from tests.features.events import T0, columns, random_rows, shard_at


def decayed(rows: np.ndarray, at_ms: int, half_life_ms: float) -> np.ndarray:
    return rows["clicks"] * 2.0 ** (-(at_ms - rows["decayed_ts_ms"]) / half_life_ms)


def test_follows_the_rows_and_survives_a_restart(tmp_path):
    shard = shard_at(tmp_path)
    shard.freeze_and_fold(*columns(random_rows(3000, 4, items=300)))
    keys = np.arange(1, 300, dtype=np.uint64)
    shard.flush()
    rows, _ = shard.store.rows("items", keys, ITEM_ROW)
    expected = decayed(rows, int(rows["last_ts_ms"].max()), 3_600_000.0)
    order = np.argsort(-expected)[:20]
    for _ in range(2):
        items, score = shard.popular.top(20)
        np.testing.assert_array_equal(items, keys[order])
        np.testing.assert_allclose(score, expected[order], rtol=1e-5)
        shard.store.close()
        shard = shard_at(tmp_path)
    shard.store.close()


def test_keeping_few_loses_none_of_the_best():
    rng = np.random.default_rng(0)
    small, whole = Popular(1e6, kept=16), Popular(1e6, kept=100_000)
    clicks = np.zeros(2000)
    for step in range(60):
        items = np.unique(rng.zipf(1.3, 200) % 2000).astype(np.uint64)
        clicks[items.astype(int)] += 1
        rows = np.zeros(len(items), ITEM_ROW)
        rows["clicks"], rows["decayed_ts_ms"], rows["last_ts_ms"] = clicks[items.astype(int)], T0 + step, T0 + step
        small.fold(items, rows)
        whole.fold(items, rows)
    np.testing.assert_array_equal(small.top(10)[1], whole.top(10)[1])


def test_nothing_yet():
    items, score = Popular(1e6).top(5)
    assert len(items) == len(score) == 0
