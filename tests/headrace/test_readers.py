"""Every format gives the same rows, in time order; what is broken is named by path and row."""

from __future__ import annotations

import datetime
import gzip
import json

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import rows as rows_of
from headrace.readers import ReadError
from headrace.schemas.container import NotAContainer, read_container
from headrace.schemas.mapping import MappingError, parse

MAPPING = parse({"columns": {"user_id": "user", "item_id": "item", "ts": "t", "label": "rating >= 4"},
                 "context": {"fields": ["hour"]}, "item": {"fields": ["genre"]}})
T = 1_600_000_000
TABLE = pa.table({
    "user": ["007", "8", "007", "9"], "item": ["a", "b", "c", "ü"], "t": [T + 5, T + 1, T + 5, T], "rating": [5, 3, 4, 1],
    "hour": ["1", None, "3", "4"], "genre": ["Action|Comedy", "Drama", None, "Sci-Fi"], "unused": [1, 2, 3, 4]})


def _lines() -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in TABLE.to_pylist())


def _csv() -> bytes:
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(TABLE, sink)
    return sink.getvalue().to_pybytes()


def _avro(path) -> None:
    kinds = {"t": "long", "rating": "int", "unused": "int"}
    fields = [{"name": name, "type": kinds.get(name, ["null", "string"])} for name in TABLE.column_names]
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Row", "fields": fields}, TABLE.to_pylist(), codec="deflate")


WRITERS = {
    "rows.parquet": lambda path: pa.parquet.write_table(TABLE, path),
    "rows.csv": lambda path: path.write_bytes(_csv()),
    "rows.csv.gz": lambda path: path.write_bytes(gzip.compress(_csv())),
    "rows.tsv": lambda path: path.write_bytes(_csv().replace(b",", b"\t")),
    "rows.jsonl": lambda path: path.write_bytes(_lines()),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(_lines())),
    "rows.avro": _avro,
    "named-by-its-first-bytes": lambda path: pa.parquet.write_table(TABLE, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    rows = rows_of.load(path, MAPPING)
    assert rows.row.tolist() == [3, 1, 0, 2]
    assert rows.ts_ms.tolist() == [T * 1000, (T + 1) * 1000, (T + 5) * 1000, (T + 5) * 1000]
    assert rows.label.tolist() == [False, False, True, True]
    assert rows.user.to_pylist() == ["9", "8", "007", "007"]
    assert rows.item.to_pylist() == ["ü", "b", "a", "c"]
    assert rows.features["hour"].to_pylist() == ["4", None, "1", "3"]
    assert rows.features["item.genre"].to_pylist() == ["Sci-Fi", "Drama", "Action|Comedy", None]
    assert len(rows.digest) == 8


@given(st.lists(st.integers(T, T + 3), min_size=1, max_size=50))
def test_time_order_with_ties_by_row(tmp_path_factory, times):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    count = len(times)
    pa.parquet.write_table(pa.table({"user": ["u"] * count, "item": ["i"] * count, "t": times, "rating": [1] * count,
                                     "hour": ["1"] * count, "genre": ["x"] * count}), path)
    rows = rows_of.load(path, MAPPING)
    assert rows.row.tolist() == sorted(range(count), key=lambda row: (times[row], row))


def test_lists_other_separators_and_numbers_become_text(tmp_path):
    path = tmp_path / "rows.parquet"
    pa.parquet.write_table(pa.table({"user": [1], "item": [2], "t": [T], "rating": [True], "hour": [3], "genre": [["Action", "Comedy"]]}),
                           path)
    rows = rows_of.load(path, MAPPING)
    assert (rows.user.to_pylist(), rows.features["item.genre"].to_pylist()) == (["1"], ["Action|Comedy"])
    path.unlink()
    spaced = parse({"columns": {"user_id": "user", "item_id": "item", "ts": "t", "label": "l"},
                    "item": {"fields": ["g"], "separator": " "}})
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"user": "u", "item": "i", "t": T, "l": True, "g": "Action Comedy"}))
    rows = rows_of.load(path, spaced)
    assert rows.features["item.g"].to_pylist() == ["Action|Comedy"]
    assert rows.label.tolist() == [True]


@pytest.mark.parametrize(("times", "unit", "expected"), [
    (pa.array([T]), "s", T * 1000),
    (pa.array([T * 1000 + 7]), "ms", T * 1000 + 7),
    (pa.array([T + 0.25]), "s", T * 1000 + 250),
    (pa.array([str(T)]), "s", T * 1000),
    (pa.array([datetime.datetime.fromtimestamp(T, datetime.timezone.utc)]), "ms", T * 1000),
    (pa.array([T * 10**9], pa.timestamp("ns")), "s", T * 1000),
    (pa.array([datetime.date(2020, 9, 13)]), "s", 1599955200000),
])
def test_times(tmp_path, times, unit, expected):
    path = tmp_path / "rows.parquet"
    one = pa.array(["x"])
    pa.parquet.write_table(pa.table({"user": one, "item": one, "t": times, "rating": [1], "hour": one, "genre": one}), path)
    mapping = parse({"time_unit": unit, "columns": {"user_id": "user", "item_id": "item", "ts": "t", "label": "rating"}})
    assert rows_of.load(path, mapping).ts_ms.tolist() == [expected]


GOOD = '{"user":"u","item":"i","t":1600000000,"rating":1,"hour":"1","genre":"x"}\n'


@pytest.mark.parametrize(("name", "content", "says"), [
    ("r.jsonl", GOOD + "{nope\n", "line 2: no JSON"),
    ("r.jsonl", GOOD + "[1]\n", "line 2: no JSON object"),
    ("r.jsonl", GOOD + GOOD.replace('"u"', "null"), "row 1: column 'user' is null"),
    ("r.jsonl", GOOD + GOOD.replace('"i"', '""'), "row 1: column 'item' is empty"),
    ("r.jsonl", GOOD + GOOD.replace("1600000000", "-1"), "row 1: column 't' is -1, which is no time"),
    ("r.jsonl", GOOD + GOOD.replace("1600000000", "1600000000000"), "row 1: column 't' is 1600000000000, which is no time .* in s"),
    ("r.jsonl", GOOD + GOOD.replace("1600000000", "null"), "row 1: column 't' is null"),
    ("r.jsonl", GOOD + GOOD.replace("1600000000", '"then"'), "row 1: column 't' is 'then'"),
    ("r.jsonl", GOOD.replace(":1,", ':"good",'), "row 0: column 'rating' is 'good', which is no number"),
    ("r.jsonl", GOOD + GOOD.replace('"x"', "[1]"), "row 1: column 'genre'"),
    ("r.jsonl", "", "holds no rows"),
    ("r.csv", "user,item,t,rating,hour,genre\nu,i,1600000000,1,1,x\nu,i,1600000000\n", "line 3: 3 columns where the header has 6"),
    ("r.csv", "user,item,t,rating,hour,genre\nu,i,1600000000,1,1,x\nu,,1600000000,1,1,x\n", "row 1: column 'item' is null"),
    ("r.csv", "user,item,t,rating,hour,genre\n", "holds no rows"),
    ("r.csv", "", "not read as csv: Empty"),
    ("r.csv.gz", b"\x1f\x8b\x08", "not read as csv"),
    ("r.parquet", "nothing", "not read as parquet"),
    ("r.avro", "nothing", "four bytes of an Avro container"),
    ("r.dat", "nothing", "cannot tell what it is"),
])
def test_what_is_broken_is_named(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReadError, match=says) as error:
        rows_of.load(path, MAPPING)
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_missing_column(tmp_path):
    with pytest.raises(ReadError, match="No such file"):
        rows_of.load(tmp_path / "none.parquet", MAPPING)
    for name, write in WRITERS.items():
        path = tmp_path / name
        write(path)
        with pytest.raises(MappingError, match=r"no column 'device' .*its columns: .*user, item, t, rating"):
            rows_of.load(path, parse({"columns": {"user_id": "user", "item_id": "item", "ts": "t", "label": "rating"},
                                      "context": {"fields": ["device"]}}))


@pytest.mark.parametrize("kind", [
    ["null", "Row"],
    {"type": "array", "items": "null"},
    {"type": "array", "items": {"type": "null"}},
    {"type": "array", "items": {"type": "record", "name": "Empty", "fields": []}},
    {"type": "map", "values": {"type": "record", "name": "Nulls", "fields": [{"name": "n", "type": "null"}]}},
    {"type": "array", "items": {"type": "fixed", "name": "Nothing", "size": 0}},
])
def test_schemas_that_kill_a_reader_are_refused(tmp_path, kind):
    path = tmp_path / "row.avro"
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Row", "fields": [{"name": "a", "type": kind}, {"name": "b", "type": "int"}]}, [])
    with pytest.raises(NotAContainer):
        read_container(path)


def test_a_cut_container_is_named_by_row(tmp_path):
    path = tmp_path / "rows.avro"
    _avro(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ReadError, match=r"rows\.avro: row 0"):
        rows_of.load(path, MAPPING)


def test_shuffled_labels_keep_their_rate_and_nothing_else_moves(tmp_path):
    path = tmp_path / "rows.parquet"
    count = 1000
    label = np.arange(count) % 3 == 0
    one = ["x"] * count
    pa.parquet.write_table(pa.table({"user": one, "item": one, "t": [T] * count, "rating": label, "hour": one, "genre": one}), path)
    rows = rows_of.load(path, parse({"columns": {"user_id": "user", "item_id": "item", "ts": "t", "label": "rating"}}))
    control = rows.shuffled(1)
    assert control.positives == rows.positives == label.sum()
    assert (control.label != rows.label).any() and (rows.shuffled(1).label == control.label).all()
    assert rows.first(10).row.tolist() == list(range(10))
