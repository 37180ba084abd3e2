"""Replay: order, ids, labels, clocks, pace, the closing heartbeats; and that it is fast enough."""

from __future__ import annotations

import itertools
import time

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import rows as rows_of
from headrace.replay import LOG_TS, Pace, close, heartbeat, replay
from headrace.schemas.codec import Codec
from headrace.schemas.hashing import partition_of
from headrace.schemas.mapping import parse

MAPPING = parse({"columns": {"user_id": "user", "item_id": "item", "ts": "t", "label": "rating >= 4", "action": "like"},
                 "context": {"fields": ["hour"]}, "user": {"fields": ["age"]}, "item": {"fields": ["genre"]}})
T = 1_600_000_000


class OneSchema:
    """A registry with room for one schema."""

    text = ""

    def register(self, subject: str, text: str) -> int:
        self.text = text
        return 1

    def schema(self, schema_id: int) -> str:
        return self.text


def rows_in(folder, times, ratings, **columns):
    path = folder / "rows.parquet"
    count = len(times)
    table = {"user": [f"u{i % 3}" for i in range(count)], "item": [f"i{i}" for i in range(count)], "t": times, "rating": ratings,
             "hour": ["7"] * count, "age": ["30"] * count, "genre": ["Action|Comedy"] * count, **columns}
    pa.parquet.write_table(pa.table(table), path)
    return rows_of.load(path, MAPPING)


def test_an_impression_a_row_and_an_action_right_after_a_true_label(tmp_path):
    rows = rows_in(tmp_path, [T + 1, T, T + 2], [5, 1, 4], hour=["7", None, "9"])
    out = []
    sent = replay(rows, lambda key, record: out.append((key, record)))
    assert [record["event_id"] for _, record in out] == [f"{rows.digest}-{end}" for end in ("1-i", "0-i", "0-a", "2-i", "2-a")]
    assert [key.decode() for key, _ in out] == [record["user_id"] for _, record in out] == ["u1", "u0", "u0", "u2", "u2"]
    assert [record["action"] for _, record in out] == ["impression", "impression", "like", "impression", "like"]
    assert [record["ts_ms"] - T * 1000 for _, record in out] == [0, 1000, 1000, 2000, 2000]
    assert out[0][1]["context"] == {"user.age": "30", "item.genre": "Action|Comedy"}
    assert out[1][1]["context"] == {"hour": "7", "user.age": "30", "item.genre": "Action|Comedy"}
    assert (sent.rows, sent.impressions, sent.actions, sent.interactions) == (3, 3, 2, 5)
    assert (sent.first_ts_ms, sent.last_ts_ms, sent.digest) == (T * 1000, (T + 2) * 1000, rows.digest)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=40))
def test_every_row_once_in_order(tmp_path_factory, values):
    rows = rows_in(tmp_path_factory.mktemp("rows"), [T + t for t, _ in values], [rating for _, rating in values])
    out = []
    sent = replay(rows, lambda key, record: out.append(record))
    order = sorted(range(len(values)), key=lambda row: (values[row][0], row))
    expected = itertools.chain.from_iterable([(row, "i"), (row, "a")] if values[row][1] >= 4 else [(row, "i")] for row in order)
    assert [record["event_id"].split("-", 1)[1] for record in out] == [f"{row}-{kind}" for row, kind in expected]
    assert len({record["event_id"] for record in out}) == len(out) == sent.interactions


def test_now_stamps_when_it_sends_and_keeps_the_files_time(tmp_path):
    rows = rows_in(tmp_path, [T, T + 1000], [5, 1])
    wall = itertools.count(2_000_000_000_000)
    out = []
    sent = replay(rows, lambda key, record: out.append(record), clock="now", wall_ms=lambda: next(wall))
    assert [record["ts_ms"] - 2_000_000_000_000 for record in out] == [1, 1, 2]
    assert [record["context"][LOG_TS] for record in out] == [str(T * 1000)] * 2 + [str((T + 1000) * 1000)]
    assert sent.last_ts_ms == 2_000_000_000_002


def test_the_closing_heartbeats_reach_every_partition(tmp_path):
    rows = rows_in(tmp_path, [T], [5])
    sent = replay(rows, lambda key, record: None)
    out, naps = [], []
    over = close(sent, lambda key, record: out.append((key, record)), 4, 1000, 200, sleep=naps.append)
    assert over == T * 1000 + 1201
    assert [partition_of(key, 4) for key, _ in out] == [0, 1, 2, 3] * 3
    assert all(record == heartbeat(over) for _, record in out)
    assert (out[0][1]["user_id"], out[0][1]["item_id"], out[0][1]["event_id"]) == ("", "", "heartbeat")


def test_heartbeats_under_now_wait_for_the_window_and_never_run_ahead(tmp_path):
    rows = rows_in(tmp_path, [T], [5])
    wall = [1_700_000_000_000]
    sent = replay(rows, lambda key, record: None, clock="now", wall_ms=lambda: wall[0])

    def sleep(seconds: float) -> None:
        wall[0] += int(seconds * 1000)

    out = []
    over = close(sent, lambda key, record: out.append((record["ts_ms"], wall[0])), 2, 1000, 200, clock="now", wall_ms=lambda: wall[0],
                 sleep=sleep)
    assert all(ts_ms <= now for ts_ms, now in out)
    assert over >= sent.last_ts_ms + 1201 and len(out) == 2 * 14


def test_pace_follows_the_files_times(tmp_path):
    rows = rows_in(tmp_path, [T, T + 1, T + 2], [1, 1, 1])
    at = []
    started = time.monotonic()
    replay(rows, lambda key, record: at.append(time.monotonic() - started), pace=Pace.of("10x"))
    assert len(at) == 3 and all(got == pytest.approx(due, abs=0.08) for got, due in zip(at, (0.0, 0.1, 0.2), strict=True))
    assert all(got >= due for got, due in zip(at, (0.0, 0.1, 0.2), strict=True))


@pytest.mark.parametrize("text", ["fast", "0x", "0.5x", "-1x", "infx", "nanx", "10", "x", ""])
def test_a_pace_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="write max, 1x, 10x"):
        Pace.of(text)


def test_thousands_of_rows_are_encoded_each_with_its_action(tmp_path):
    """How fast: `headrace bench replay.encode`."""
    count = 9_000
    rows = rows_in(tmp_path, list(range(T, T + count)), [1 + i % 5 for i in range(count)])
    codec = Codec("interactions", OneSchema())
    out = []
    sent = replay(rows, lambda key, record: out.append((key, codec.encode(record))))
    assert len(out) == sent.interactions == count + count * 2 // 5
    assert codec.decode(out[0][1])["context"] == {"hour": "7", "user.age": "30", "item.genre": "Action|Comedy"}
