import threading

import pytest

from headrace.engine.clock import LOG, NOW, Clock, ClockFixed
from headrace.engine.heartbeat import Heartbeats
from headrace.schemas.hashing import partition_of
from tests.engine.world import WALL_MS

LOG_MS = 890_000_000_000


@pytest.fixture
def wall():
    return [WALL_MS]


@pytest.fixture
def clock(tmp_path, wall):
    return Clock(tmp_path / "clock.json", lambda: wall[0])


def test_unset_until_used(clock):
    assert clock.state() == {"mode": None, "ts_ms": None}
    assert clock.peek() == WALL_MS and clock.mode is None
    assert clock.use() == WALL_MS and clock.mode == "now"


def test_the_log_moves_forward_only(clock, wall):
    assert clock.set("log", LOG_MS) == {"mode": "log", "ts_ms": LOG_MS}
    wall[0] += 500
    assert clock.use() == LOG_MS + 500
    assert clock.set("log", LOG_MS + 100)["ts_ms"] == LOG_MS + 500
    assert clock.set("log", LOG_MS + 9000)["ts_ms"] == LOG_MS + 9000
    wall[0] -= 60_000
    assert clock.use() == LOG_MS + 9000


@pytest.mark.parametrize(("first", "then"), [("now", "log"), ("log", "now")])
def test_one_clock_a_run(clock, first, then):
    clock.set(first, LOG_MS)
    with pytest.raises(ClockFixed, match=first):
        clock.set(then, LOG_MS)


def test_a_log_is_left_for_today_and_not_again(clock, wall):
    clock.set("log", LOG_MS)
    with pytest.raises(ClockFixed, match="headrace clock now"):
        clock.set("now", wall[0])
    assert clock.leave_log() == {"mode": "now", "ts_ms": WALL_MS}
    wall[0] += 5
    assert clock.leave_log()["ts_ms"] == WALL_MS + 5 == clock.use()
    with pytest.raises(ClockFixed):
        clock.set("log", WALL_MS)


def test_a_log_that_is_ahead_of_today_is_not_left(clock, wall):
    clock.set("log", WALL_MS + 1000)
    with pytest.raises(ClockFixed, match="ahead of today"):
        clock.leave_log()
    wall[0] = WALL_MS - 1
    assert clock.mode == "log"


def test_an_unset_clock_is_left_as_now(clock):
    assert clock.leave_log()["mode"] == "now"


def test_it_outlives_the_process(clock, wall, tmp_path):
    clock.set("log", LOG_MS)
    wall[0] += 1000
    assert Clock(tmp_path / "clock.json", lambda: wall[0]).state() == {"mode": "log", "ts_ms": LOG_MS + 1000}


def test_events_of_today_fix_now_and_those_of_a_log_do_not(clock):
    clock.met(LOG_MS)
    assert clock.mode is None
    clock.met(WALL_MS + 1000)
    assert clock.mode == "now"


def test_a_log_is_left_over_http(world):
    assert world.http.post("/clock", json={"mode": "log", "ts_ms": LOG_MS}).status_code == 200
    refused = world.http.post("/clock", json={"mode": "log", "ts_ms": LOG_MS, "leave_log": True})
    assert refused.status_code == 422 and "leave_log" in refused.json()["error"]
    assert world.http.post("/clock", json={"mode": "now", "leave_log": True}).json()["mode"] == "now"
    assert world.http.post("/clock", json={"mode": "log", "ts_ms": LOG_MS}).status_code == 409


def test_over_http(world):
    assert world.http.get("/clock").json() == {"mode": None, "ts_ms": None}
    assert world.http.post("/clock", json={"mode": "log", "ts_ms": LOG_MS}).json() == {"mode": "log", "ts_ms": LOG_MS}
    refused = world.http.post("/clock", json={"mode": "now"})
    assert refused.status_code == 409 and refused.json()["error"] and refused.json()["next"]
    world.http.get("/recommend?user=u1&n=1")
    assert world.impressions[0][1]["ts_ms"] == LOG_MS


def test_heartbeats_reach_every_partition_once_the_clock_is_set(clock):
    sent, enough = [], threading.Event()

    def send(key, record):
        sent.append((key, record))
        if len(sent) >= 12:
            enough.set()

    heartbeats = Heartbeats(clock, 4, 5, send)
    heartbeats.beat()
    assert sent == []
    clock.set("log", LOG_MS)
    heartbeats.start()
    assert enough.wait(10)
    heartbeats.stop()
    assert {partition_of(key, 4) for key, _ in sent} == {0, 1, 2, 3}
    assert sent[0][1] == {"event_id": "heartbeat", "user_id": "", "item_id": "", "action": "heartbeat", "ts_ms": LOG_MS}


def test_heartbeats_lie_behind_the_clock_now_and_on_the_log_s_time(tmp_path):
    """A producer delivers an event a while after it is dated; a log's heartbeats lie behind its events already."""
    sent = []
    for mode, ts_ms in ((NOW, WALL_MS), (LOG, LOG_MS)):
        clock = Clock(tmp_path / f"{mode}.json", lambda: WALL_MS)
        clock.set(mode, ts_ms)
        Heartbeats(clock, 2, 5, lambda key, record: sent.append(record["ts_ms"]), lag_ms=700).beat()
    assert sent == [WALL_MS - 700] * 2 + [LOG_MS] * 2
