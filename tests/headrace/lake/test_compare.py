"""Differences between two lakes: every column, one alone, bits, lists, events of two runs."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from headrace.lake.columns import AT, FIELDS, KEY, PACKED, table_of
from headrace.lake.compare import compare
from tests.headrace.lake import worlds


def table(*samples):
    return table_of(samples, [(0, n, n) for n in range(len(samples))])


def changed(name):
    """Another value of a column."""
    record = worlds.sample(3, label=1.0)
    value = record[name]
    if name in PACKED:
        return record | {name: value[:-1] + bytes([value[-1] ^ 1])}
    if isinstance(value, list):
        return record | {name: [*value, "b=c"]}
    return record | {name: 9 if value is None and name == "version" else 0.5 if value is None and name == "score" else "x" if value is None
                     else value + ("x" if isinstance(value, str) else 1)}


BASE = [worlds.sample(n, label=float(n == 3)) for n in range(6)]


def test_equal_in_any_order_and_wherever_it_lay():
    found = compare(table(*BASE), table(*reversed(BASE)))
    assert found.equal and found.both == 6 and found.columns == {}


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in KEY])
def test_each_column_is_compared(name):
    other = [changed(name) if record["offset"] == 3 else record for record in BASE]
    found = compare(table(*BASE), table(*other))
    assert not found.equal and (found.differing, found.columns, found.only) == (1, {name: 1}, (0, 0))
    assert found.examples == [{"source": 7, "partition": 1, "offset": 3, "target": "click", "event_id": "e1-3", "columns": [name]}]
    assert compare(table(*BASE), table(*other), ignore=[name]).equal


@pytest.mark.parametrize("name", KEY)
def test_each_column_of_the_key_tells_samples_apart(name):
    other = [changed(name) if record["offset"] == 3 else record for record in BASE]
    if name == "offset":
        other[3]["offset"] = 77
    found = compare(table(*BASE), table(*other))
    assert (found.both, found.only, found.differing) == (5, (1, 1), 0)
    assert found.only_first[0]["event_id"] == "e1-3" and found.only_second[0][name] == other[3][name]


def test_null_and_nan_are_themselves():
    nan = worlds.sample(1) | {"score": float("nan"), "label": float("nan")}
    assert compare(table(nan), table(nan)).equal
    assert compare(table(nan), table(nan | {"score": None})).columns == {"score": 1}
    assert compare(table(nan), table(nan | {"feature_keys": nan["feature_keys"] + b"8 bytes."})).columns == {"feature_keys": 1}


def test_by_event_across_runs_and_an_event_that_was_sent_twice():
    other = [record | {"source": 9, "offset": record["offset"] + 100, "partition": 0} for record in BASE]
    assert not compare(table(*BASE), table(*other)).equal
    assert compare(table(*BASE), table(*other), by_event=True).equal
    twice = [*other, other[2] | {"offset": 500, "label": 1.0}]
    found = compare(table(*BASE), table(*twice), by_event=True)
    assert found.repeated == (0, 1) and found.equal
    other[2]["label"] = 1.0
    assert compare(table(*BASE), table(*other), by_event=True).columns == {"label": 1}


def test_a_column_that_only_one_has():
    newer = table(*BASE).append_column("later", pa.array([None, None, None, None, 1, 2]))
    assert compare(table(*BASE), newer).columns == {"later": 2} and compare(newer, table(*BASE)).differing == 2


def test_nothing_and_something():
    none = table(*BASE).slice(0, 0)
    assert compare(none, none).equal and dataclasses.asdict(compare(none, table(*BASE)))["only"] == (0, 6)


def test_many_rows_as_a_plain_loop_finds(tmp_path):
    rng = np.random.default_rng(3)
    one = [worlds.sample(int(n), label=float(rng.integers(2))) for n in range(300)]
    two = [record | ({"label": 1 - record["label"]} if rng.random() < 0.1 else {}) for record in one if rng.random() < 0.9]
    found = compare(table(*one), table(*[two[n] for n in rng.permutation(len(two))]))
    held = {record["offset"]: record["label"] for record in two}
    assert found.only == (300 - len(two), 0) and found.both == len(two)
    assert found.differing == sum(held[record["offset"]] != record["label"] for record in one if record["offset"] in held) > 5
    assert not {*AT} & {*found.columns}
