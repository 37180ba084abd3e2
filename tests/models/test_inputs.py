"""What a model makes of a sample by its transforms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.models.inputs import Inputs, TransformError, transforms_of
from headrace.schemas.hashing import feature_key
from tests.naive import bucket_of

SLOTS, SIDE, EMPTY = ("bias", "user_id", "item_id", "item.0"), np.array([0, 1, 2, 2], np.uint8), np.arange(11, 15, dtype=np.uint64)
NUMBERS = ("user_count", "item_ratio")
TABLES = [{"bucket": "user_count", "edges": [0, 1, 3.5]},
          {"name": "ratio", "scale": "item_ratio", "by": "log_odds", "center": -2, "spread": 2},
          {"cross": ["bucket:user_count", "item.0"]}, {"name": "pair", "cross": ["item_id", "item.0"]}]


def seed(name):
    return feature_key(name, "")


def made(tables=TABLES):
    return Inputs(SLOTS, SIDE, EMPTY, NUMBERS, transforms_of(tables), seed)


@given(st.lists(st.tuples(st.integers(1, 1 << 62), st.booleans(), st.floats(-5, 9, width=32), st.floats(0, 1, width=32)), max_size=5))
@settings(max_examples=50, deadline=None)
def test_each_row_is_what_its_numbers_say(rows):
    n = len(rows)
    keys = np.array([[1, 2, 3, key] for key, *_ in rows], np.uint64).reshape(n, 4)
    values = np.array([[1, 1, 1, has] for _, has, *_ in rows], np.float32).reshape(n, 4)
    numbers = np.array([row[2:] for row in rows], np.float32).reshape(n, 2)
    inputs = made()
    wide, weights = inputs.expand(keys, values, numbers)
    assert wide.shape == weights.shape == (n, 8) and (wide[:, :4] == keys).all() and (weights[:, :4] == values).all()
    for i, (key, has, count, ratio) in enumerate(rows):
        bucket = bucket_of(seed("bucket:user_count"), sum(count >= edge for edge in (0, 1, 3.5)))
        assert (int(wide[i, 4]), weights[i, 4]) == (bucket, 1)
        held = min(max(float(np.float32(ratio)), 1e-6), 1 - 1e-6)
        assert weights[i, 5] == pytest.approx(min(4, max(-4, (np.log(held / (1 - held)) + 2) / 2)), rel=1e-5, abs=1e-6)
        assert int(wide[i, 5]) == seed("ratio")
        name = "cross:bucket:user_count:item.0"
        cross = bucket_of(bucket_of(seed(name), bucket), key) if has else seed(name)
        assert (int(wide[i, 6]), weights[i, 6]) == (cross, has)
        assert weights[i, 7] == has


def test_sides_and_names():
    inputs = made()
    assert inputs.slots[4:] == ["bucket:user_count", "ratio", "cross:bucket:user_count:item.0", "pair"]
    assert inputs.side.tolist() == [0, 1, 2, 2, 0, 0, 0, 2] and inputs.F == 8
    assert inputs.empty.tolist()[3:5] == [14, seed("bucket:user_count")] and len(inputs.fields.scale) == 8


def test_without_transforms_nothing_is_copied():
    keys, values = np.ones((2, 4), np.uint64), np.ones((2, 4), np.float32)
    wide, weights = Inputs(SLOTS, SIDE, EMPTY, NUMBERS).expand(keys, values, np.zeros((2, 2), np.float32))
    assert wide is keys and weights is values


@pytest.mark.parametrize(("table", "told"), [
    ({}, "the 1.: one of bucket, scale and cross says what it does; it has nothing"),
    ({"bucket": "user_count", "scale": "user_count"}, "one of bucket, scale and cross"),
    ({"bucket": "user_count"}, r"edges is None; 1 to 256 rising numbers were expected"),
    ({"bucket": "user_count", "edges": [1, 1]}, r"edges is \[1, 1\]"),
    ({"bucket": "user_count", "edges": [float("nan")]}, r"edges is \[nan\]"),
    ({"bucket": "user_cuont", "edges": [1]}, r"'user_cuont' is no number of this feature set; there are user_count, item_ratio"),
    ({"bucket": "user_count", "egdes": [1]}, r"'egdes' is no key of a bucket; there are name, bucket, edges"),
    ({"scale": "user_count", "by": "ln"}, r"by is 'ln'; there are none, log1p, log2, log_odds"),
    ({"scale": "user_count", "spread": 0}, r"spread one above 0"),
    ({"cross": ["user_id"]}, r"cross is \['user_id'\]; two names of slots were expected"),
    ({"cross": ["user_id", "later"]}, r"'later' is no slot of this feature set"),
    ({"name": "item_id", "scale": "user_count"}, r"transform item_id: a slot has that name already"),
])
def test_what_is_wrong_is_told(table, told):
    with pytest.raises(TransformError, match=told):
        made([table])
