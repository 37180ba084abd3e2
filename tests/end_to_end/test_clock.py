"""A stack that replays a log of the past by its own times, refuses what does not follow, meets an event of today, and goes live."""

import json
import time

import pyarrow.compute as pc
import pyarrow.parquet
import pytest

from headrace.config import Config
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, heartbeat, until
from tests.end_to_end.test_errors import refused

ROWS = 2000


@pytest.fixture(scope="module")
def past(tmp_path_factory, kuairand):
    """(the stack seen from outside, its command line) after the replay of a log's beginning."""
    for stack in running(tmp_path_factory.mktemp("past"), config=Config()):
        command = towards(stack)
        submitted = command("jobs", "submit")
        assert submitted.returncode == 0, submitted.stderr
        done = command("replay", str(kuairand), "--mapping", mapping(kuairand), "--limit", str(ROWS))
        assert done.returncode == 0, done.stderr
        assert "events that bring a ts_ms of today wait until `headrace clock now`" in done.stdout
        with Outside(stack) as outside:
            yield outside, command


def mapping(file) -> str:
    return str(file.parent / "mapping.toml")


def test_the_log_clock_learns_a_file_and_refuses_an_older_one(past, kuairand, tmp_path):
    """And the other clock: a stack has one a run."""
    stack, command = past
    older = tmp_path / "older.parquet"
    table = pyarrow.parquet.read_table(kuairand)
    table = table.set_column(table.column_names.index("ts_ms"), "ts_ms", pc.subtract(table["ts_ms"], 365 * 86_400_000))
    pyarrow.parquet.write_table(table, older)

    def replay(file, *more):
        return command("replay", str(file), "--mapping", mapping(kuairand), "--limit", str(ROWS), *more)

    def events():
        return sum(not heartbeat(row) for row in stack.read("interactions", {}))

    assert stack.applied() == [ROWS] * 2
    first = min(row["ts_ms"] for row in stack.samples({}).values())
    assert first == min(table["ts_ms"].to_pylist()) + 365 * 86_400_000
    before = events()
    refused(replay(older), 1, "the stack's event time is 2022-04-08", f"{older} runs from 2021-04-07", "new data dir",
            "headrace up --data DIR")
    refused(replay(kuairand), 1, "the stack's event time is 2022-04-08")
    refused(replay(kuairand, "--clock", "now"), 1, "this stack runs on the clock 'log'", "replay with --clock log")
    assert events() == before and before > ROWS


def test_an_event_of_today_waits_and_says_so_and_is_learnt_when_the_stack_goes_live(past, kuairand):
    stack, command = past
    start, dead, applied = stack.offsets("samples"), stack.offsets("dead-letters"), stack.applied()
    now = time.time_ns() // 1_000_000
    event = {"user_id": "today", "item_id": "i", "action": "impression", "event_id": "waiting", "ts_ms": now}
    answer = stack.post("/events", [event, {**event, "action": "click", "event_id": "waiting-click"}])
    assert answer.json()["accepted"] == 2 and "headrace clock now" in answer.json()["note"]

    assert "a replayed log's, event time 20" in command("clock").stdout and "`headrace clock now`" in command("status").stdout
    until(lambda: enriched(stack, "waiting"), "the event in enriched")
    assert "it waits for event time: it is of 20" in command("trace", "waiting").stdout
    refused = command("replay", str(kuairand), "--mapping", mapping(kuairand), "--check", "--clock", "now")
    assert refused.returncode == 1 and "headrace clock now" in refused.stderr, refused.stderr
    assert stack.offsets("samples") == start, "it is learnt while it should wait: the test shows nothing"

    moved = command("clock", "now", "--json")
    assert moved.returncode == 0 and json.loads(moved.stdout)["mode"] == "now", moved.stderr
    until(lambda: min(stack.applied()) == max(applied) + 1, "the sample of today is learnt")
    sample, = stack.samples(start).values()
    assert (sample["user_id"], sample["label"]) == ("today", 1.0)
    assert stack.offsets("dead-letters") == dead
    assert "waits for event time" not in command("trace", "waiting").stdout
    assert command("clock", "now").stdout.startswith("clock: now"), "a second time changes nothing"
    assert command("replay", str(kuairand), "--mapping", mapping(kuairand), "--check").returncode == 1, "a log of the past comes too late"
    assert command("replay", str(kuairand), "--mapping", mapping(kuairand), "--check", "--clock", "now").returncode == 0


def enriched(stack, name):
    return [row for row in stack.read("enriched", {}) if row.record["event_id"] == name]
