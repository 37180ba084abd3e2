"""Rows that are kept in memory: what the store holds, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.row_cache import RowCache
from headrace.features.store import FeatureStore

ROW = np.dtype([("number", "<i8"), ("more", "<u4", (2,))])
KEYS = st.lists(st.integers(1, 12), max_size=6, unique=True)


def rows_of(numbers):
    made = np.zeros(len(numbers), ROW)
    made["number"] = numbers
    return made


@given(st.lists(st.tuples(st.booleans(), KEYS), max_size=30), st.integers(1, 8))
def test_it_gives_what_was_put_last_or_nothing(steps, places):
    cache, told = RowCache(ROW.itemsize, places * ROW.itemsize), {}
    for step, (puts, keys) in enumerate(steps):
        names = np.array(keys, np.uint64)
        if puts:
            numbers = [100 * step + key for key in keys]
            cache.put(names, rows_of(numbers))
            told |= dict(zip(keys, numbers, strict=True))
        rows, held = cache.get(names)
        assert [int(number) for number in rows.view(ROW)["number"][held]] == [told[key] for key in np.array(keys)[held].tolist()]
        assert held.sum() <= places


def test_the_newest_stay():
    cache = RowCache(ROW.itemsize, 4 * ROW.itemsize)
    for key in range(1, 8):
        cache.put(np.array([key], np.uint64), rows_of([key]))
    assert cache.get(np.arange(1, 8).astype(np.uint64))[1].tolist() == [False] * 3 + [True] * 4


def test_rows_of_a_batch_are_read_when_it_is_written_and_not_before(tmp_path):
    store, keys = FeatureStore(tmp_path), np.array([1, 2], np.uint64)
    batch = store.batch()
    batch.put_rows("items", keys, rows_of([3, 4]))
    assert not store.rows("items", keys, ROW)[1].any()
    store.write(batch)
    rows, found = store.rows("items", np.array([2, 9, 1, 2], np.uint64), ROW)
    assert found.tolist() == [True, False, True, True] and rows["number"].tolist() == [4, 0, 3, 4]
    rows["number"] = 99  # the caller's
    assert store.rows("items", keys, ROW)[0]["number"].tolist() == [3, 4]
    store.reopen()
    assert store.rows("items", keys, ROW)[0]["number"].tolist() == [3, 4]
    store.close()


def test_a_batch_that_was_not_written_is_never_read(tmp_path, monkeypatch):
    store, keys = FeatureStore(tmp_path), np.array([1], np.uint64)
    first, second = store.batch(), store.batch()
    first.put_rows("items", keys, rows_of([3]))
    second.put_rows("items", keys, rows_of([4]))
    store.write(first)

    class Full:
        def write(self, *_):
            raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_db", Full())
        with pytest.raises(OSError, match="no space"):
            store.write(second)
        assert store.rows("items", keys, ROW)[0]["number"].tolist() == [3]
    store.reopen()
    assert store.rows("items", keys, ROW)[0]["number"].tolist() == [3]
    store.close()


def test_a_row_of_another_width_is_no_row_of_this(tmp_path):
    store, keys = FeatureStore(tmp_path), np.array([1], np.uint64)
    batch = store.batch()
    batch.put_rows("items", keys, rows_of([3]))
    store.write(batch)
    with pytest.raises(AssertionError, match="another layout"):
        store.rows("items", keys, np.dtype("V8"))
    store.close()
