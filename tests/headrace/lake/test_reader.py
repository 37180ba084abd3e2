"""A lake as tables: event times, targets, columns, feature sets of several widths, and what was written before a column was."""

from datetime import date, datetime, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from headrace import lake
from headrace.lake.columns import SCHEMA
from headrace.lake.errors import BadRange
from headrace.lake.reader import by_hour, choice, ms_of, opened
from tests.headrace.lake import worlds

HOUR_MS = 3_600_000
SEVEN_MS = worlds.BEGIN_MS + 60_000  # 2026-11-30T07:00


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 samples a minute apart in reverse order of event time, from 06:59 on, of two targets, in three commits."""
    made = tmp_path_factory.mktemp("lake")
    topic = worlds.ListTopic([worlds.sample(n, target="like" if n % 3 == 0 else "click", label=float(n % 6 == 0),
                                            ts_ms=worlds.BEGIN_MS + 60_000 * (59 - n)) for n in range(60)])
    topic.batch = 20
    worlds.drain(worlds.writer(made, topic), topic, commit_every=1)
    return made


def test_in_one_call_in_the_order_of_event_time(folder):
    table = lake.read(folder)
    assert table["ts_ms"].to_pylist() == [worlds.BEGIN_MS + 60_000 * n for n in range(60)] and table.schema == SCHEMA
    frame = table.to_pandas()
    assert frame["feature_keys"][0].dtype == np.uint64 and frame["feature_keys"][0].tolist() == [2**63 + 59 + n for n in range(worlds.F)]
    keys, values = lake.matrix(table, "feature_keys"), lake.matrix(table, "feature_values")
    assert keys.shape == (60, worlds.F) and keys.dtype == np.uint64 and values.dtype == np.float32
    assert keys[:, 0].tolist() == [2**63 + 59 - n for n in range(60)]
    assert lake.matrix(table.slice(7, 2), "feature_keys")[:, 0].tolist() == [2**63 + 52, 2**63 + 51], "a slice is its own rows"


@pytest.mark.parametrize("since, until, rows", [
    (None, None, 60), ("2026-11-30", None, 60), (None, "2026-11-30", 0), ("2026-11-30T07", None, 59), (None, "2026-11-30T07", 1),
    ("2026-11-30T08:30+01:00", "2026-11-30T07:40Z", 10), (SEVEN_MS, SEVEN_MS + 1, 1), (worlds.BEGIN_MS + 59 * 60_000, None, 1),
    (date(2026, 11, 30), date(2026, 12, 1), 60),
    (datetime(2026, 11, 30, 7, tzinfo=timezone.utc), datetime(2026, 11, 30, 7, 5), 5)])
def test_event_times(folder, since, until, rows):
    assert len(lake.read(folder, since=since, until=until)) == rows


@pytest.mark.parametrize("when", ["yesterday", "", "2026-13-01", "7"])
def test_a_time_that_is_none(when):
    with pytest.raises(BadRange, match=r"is no time: write 2026-11-30"):
        ms_of(when)


def test_target_and_columns(folder):
    table = lake.read(folder, target="like", columns=["label", "event_id"])
    assert table.column_names == ["label", "event_id"] and len(table) == 20 and sum(table["label"].to_pylist()) == 10
    assert len(lake.read(folder, target="nobody")) == 0 and lake.read(folder, target="nobody").schema == SCHEMA
    assert lake.read(folder, target="nobody", columns=["label"]).column_names == ["label"]
    with pytest.raises(BadRange, match=r"no column 'lable'; it has source, partition"):
        lake.read(folder, columns=["lable"])


def test_by_hour_is_the_whole_in_parts(folder):
    parts = list(by_hour(opened(folder)))
    assert [len(part) for part in parts] == [1, 59] and pa.concat_tables(parts).equals(lake.read(folder))
    assert sum(len(part) for part in by_hour(opened(folder), choice("2026-11-30T07", None, "click"))) == 39


def test_as_it_was_after_a_commit(folder):
    sizes = [len(lake.read(f"{folder}@{which}")) for which in ("1", "2", "3", "2-3", "3-3")]
    assert sizes == [20, 40, 60, 40, 20]
    for which, says in (("4", "has commits 1 to 3"), ("0", "has commits 1 to 3"), ("3-2", "has commits"), ("x", "write FOLDER, FOLDER@N")):
        with pytest.raises(BadRange, match=says):
            lake.read(f"{folder}@{which}")


def test_feature_sets_of_several_widths(tmp_path):
    wide = worlds.sample(2) | {"feature_set": "base@9", "feature_keys": np.arange(9, dtype="<u8").tobytes()}
    none = worlds.sample(3) | {"feature_set": "", "feature_keys": b"", "feature_values": b"", "numbers": b""}
    topic = worlds.ListTopic([worlds.sample(1), wide, none])
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    worlds.is_the_lake_of(tmp_path, *topic.partitions)
    table = lake.read(tmp_path)
    with pytest.raises(ValueError, match="one feature_set first"):
        lake.matrix(table, "feature_keys")
    assert lake.matrix(table.filter(pa.compute.equal(table["feature_set"], "base@9")), "feature_keys").tolist() == [list(range(9))]


def test_bits_are_kept(tmp_path):
    odd = np.array([np.nan, -0.0, np.inf, 1e-45, 0.1], "<f4")
    odd.view("<u4")[0] |= 5  # a NaN with a payload
    topic = worlds.ListTopic([worlds.sample(1, ts_ms=-5, feature_values=odd.tobytes()), worlds.sample(2, ts_ms=4_102_444_800_000)])
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    worlds.is_the_lake_of(tmp_path, *topic.partitions)
    assert sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.parquet")) == [
        "samples/day=1969-12-31/hour=23", "samples/day=2100-01-01/hour=00"]


def test_any_reader_of_parquet_sees_plain_columns(folder):
    path = next(iter(sorted(folder.rglob("hour=07/*.parquet"))))
    with pyarrow.parquet.ParquetFile(path) as opened_file:
        assert opened_file.schema_arrow.equals(SCHEMA)
        column = opened_file.metadata.row_group(0).column(0)
        assert column.compression == "ZSTD"
