import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.batch import Batch, MalformedBatch, from_bytes, unique, unique_keys


def test_from_bytes_gives_back_what_was_packed():
    keys = np.array([[1, 2, 2**64 - 1], [0, 5, 6]], np.uint64)
    values = np.array([[1, 0.5, -1], [0, 1, 2]], np.float32)
    batch = from_bytes([row.tobytes() for row in keys], [row.tobytes() for row in values], 3, np.array([1.0, 0.0]))
    np.testing.assert_array_equal(batch.keys, keys)
    np.testing.assert_array_equal(batch.values, values)
    assert batch.label.tolist() == [1, 0] and batch.weight.tolist() == [1, 1] and len(batch) == 2


def test_an_empty_batch():
    batch = from_bytes([], [], 3)
    keys, index = unique(batch)
    assert batch.keys.shape == (0, 3) and len(keys) == 0 and index.shape == (0, 3)


@pytest.mark.parametrize(("keys", "values", "label", "weight"), [
    ([b"x" * 16], [b"y" * 12], None, None),
    ([b"x" * 24], [b"y" * 8], None, None),
    ([b"x" * 24], [], None, None),
    ([b"x" * 16, b"x" * 32], [b"\0" * 12, b"\0" * 12], None, None),
    ([b"x" * 24], [np.array([1, np.nan, 1], np.float32).tobytes()], None, None),
    ([b"x" * 24], [b"\0" * 12], [np.inf], None),
    ([b"x" * 24], [b"\0" * 12], None, [np.nan]),
    ([b"x" * 24], [b"\0" * 12], [1, 0], None),
])
def test_a_malformed_batch_is_refused(keys, values, label, weight):
    with pytest.raises(MalformedBatch):
        from_bytes(keys, values, 3, label, weight)


some_keys = st.sampled_from([0, 1, 2, 1 << 32, 2**64 - 1, 0x9E3779B97F4A7C15]) | st.integers(0, 2**64 - 1)


@given(st.lists(st.lists(some_keys, min_size=3, max_size=3)))
def test_unique_numbers_each_key_once(rows):
    keys = np.array(rows, np.uint64).reshape(-1, 3)
    found, index = unique_keys(keys)
    np.testing.assert_array_equal(found[index], keys)
    assert sorted(found.tolist()) == sorted(set(keys.reshape(-1).tolist())) and index.dtype == np.int32


def test_unique_survives_keys_that_collide():
    keys = (np.arange(4000, dtype=np.uint64) << np.uint64(40)).reshape(-1, 4)
    found, index = unique(Batch(keys, np.ones(keys.shape, np.float32), np.zeros(1000), np.ones(1000)))
    np.testing.assert_array_equal(found[index], keys)
    assert len(found) == 4000
