"""Users before an engine: an oracle has no regret, chance has all of it, actions come when they are due, and failures end in a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from headrace.api import Client, EngineError
from headrace.cli import _app
from headrace.schemas.interaction import check_interaction
from headrace.simulator.live import FAILURES_MAX, EngineLost, Limits, Live, Server
from tests.simulator.worlds import world


class Engine:
    """Serves what `choose(user, ts_ms, unread)` names, with its true probability as the score; keeps what it is sent."""

    def __init__(self, w, choose, n=8):
        self.world, self.choose, self.n = w, choose, n
        self.events, self.sent_at, self.asked, self.seen = [], [], 0, {}
        self.down = False
        people = np.nonzero(~w.requests.bot & ~w.lost(w.requests.ts_ms))[0]
        self.times = {}
        for request in people.tolist():
            self.times.setdefault(w.users.name(int(w.requests.user[request])), []).append(int(w.requests.ts_ms[request]))

    def recommend(self, user, n, context):
        if self.down:
            raise EngineError("away")
        self.asked += 1
        number = int(user[1:])
        ts_ms = self.times[user].pop(0)
        assert context == self.world.context(ts_ms)
        live = self.world.items.live(ts_ms)
        seen = self.seen.setdefault(user, set())
        unread = np.array([item for item in live.tolist() if item not in seen])
        items = self.choose(number, ts_ms, unread if len(unread) >= n else live)[: self.n]
        seen.update(items.tolist())
        p = self.world.click_probability(number, items, ts_ms) * self.world.model.examination(np.arange(len(items)))
        rows = [{"item_id": self.world.items.name(i), "position": k, "score": float(s)}
                for k, (i, s) in enumerate(zip(items.tolist(), p.tolist(), strict=True))]
        return {"request_id": f"q{self.asked}", "items": rows, "fallback": None}

    def send(self, events):
        if self.down:
            raise EngineError("away")
        self.events += events
        self.sent_at += [self.asked] * len(events)
        return {"accepted": len(events), "refused": 0}

    def run(self, **limits):
        asked = {"page": 0.0, "requests": 400, "seconds": 1000.0} | limits
        return Live(self.world, Server(self.recommend, self.send, (EngineError,)), Limits(**asked)).run()


def oracle(w):
    return Engine(w, lambda user, ts_ms, unread: w.best(user, 8, ts_ms, unread))


def test_an_oracle_has_no_regret_and_is_calibrated():
    engine = oracle(world())
    report = engine.run()
    assert report["ended_by"] == "requests" and report["asked"] == engine.asked == 400 and report["impressions"] == 3200
    assert report["regret"] == pytest.approx(0, abs=1e-9) and report["regret_by_chance"] > 0.3
    assert report["calibration"]["ratio"] == pytest.approx(1) and report["calibration"]["rmse"] == pytest.approx(0, abs=1e-9)
    assert report["failures"] == report["foreign"] == report["page"] == 0 and len(report["windows"]) == 10
    assert sum(window["requests"] for window in report["windows"]) == 400


def test_chance_has_the_regret_of_chance():
    w = world()
    rng = np.random.default_rng(0)
    report = Engine(w, lambda user, ts_ms, unread: rng.permutation(unread)).run(requests=1000)
    assert report["regret"] == pytest.approx(report["regret_by_chance"], rel=0.05)


def test_actions_answer_their_request_in_order_of_time():
    engine = oracle(world())
    report = engine.run()
    assert report["actions"] == len(engine.events) and report["clicks"] == sum(e["action"] == "click" for e in engine.events)
    assert report["click_rate"] == pytest.approx(np.mean([window["shown"] for window in report["windows"]]) / 8, rel=0.2)
    for event in engine.events:
        assert event["request_id"].startswith("q") and event["event_id"] == f"{event['request_id']}:{event['position']}:{event['action']}"
        check_interaction({"scene": "", "value": 1.0, "position": None, "ts_ms": 10**12, "exposure": None, **event})
        assert {"user.age", "item.topic", "daypart"} <= set(event["context"])
    assert len({event["event_id"] for event in engine.events}) == len(engine.events)
    assert engine.sent_at == sorted(engine.sent_at) and len(set(engine.sent_at)) > 50


def test_late_actions_come_late():
    prompt, late = oracle(world()), oracle(world("delay"))
    prompt.run()
    late.run()

    def behind(engine):
        """How many requests lay between the exposure and its click."""
        sent = zip(engine.events, engine.sent_at, strict=True)
        return np.median([at - int(event["request_id"][1:]) for event, at in sent if event["action"] == "click"])

    assert behind(late) > behind(prompt) + 1


def test_a_short_list_is_filled_from_the_page_of_new_items():
    engine = Engine(world(), lambda user, ts_ms, unread: unread, n=3)
    report = engine.run(requests=50)
    shown = [event for event in engine.events if event["action"] == "impression"]
    assert report["page"] == 50 and len(shown) == 50 * 5 and {event["position"] for event in shown} == {3, 4, 5, 6, 7}
    own = oracle(world())
    report = own.run(page=1.0)
    assert report["asked"] == own.asked == 0 and report["page"] == 400 and report["calibration"]["exposures"] == 0
    exposed, clicked = ([e for e in own.events if (e["action"] == "impression") == wanted] for wanted in (True, False))
    assert {(e["request_id"], e["item_id"]) for e in clicked} <= {(e["request_id"], e["item_id"]) for e in exposed}


def test_items_of_another_world_count_as_nothing():
    w = world()
    engine = Engine(w, lambda user, ts_ms, unread: unread)
    engine.recommend = lambda user, n, context: {"request_id": "q", "items": [{"item_id": "x", "score": 0.5}] * 8, "fallback": "popular"}
    report = engine.run(requests=20)
    assert report["foreign"] == 160 and report["fallback"] == 20 and report["clicks"] == 0
    assert report["regret"] == pytest.approx(np.mean([window["best"] for window in report["windows"]]), rel=1e-3)


def test_dead_items_are_counted_and_nobody_clicks_them():
    w = world()
    dead = np.nonzero(w.items.dies_ms < w.start_ms + 12 * 3_600_000)[0]
    engine = Engine(w, lambda user, ts_ms, unread: dead)
    report = engine.run(requests=len(w.requests))
    late = [n for n, ts_ms in enumerate(w.requests.ts_ms.tolist()) if ts_ms >= w.start_ms + 12 * 3_600_000]
    assert len(dead) >= 8 and report["dead"] >= 8 * len(late) > 0
    assert report["windows"][-1]["shown"] == 0 and report["calibration_second_half"]["ratio"] is None


def test_nothing_is_asked_in_an_outage_and_failures_end_it():
    w = world("outage")
    engine = oracle(w)
    report = engine.run(requests=10**9)
    assert report["ended_by"] == "world" and report["skipped"] == w.lost(w.requests.ts_ms).sum() > 0
    lost = oracle(world())
    lost.down = True
    with pytest.raises(EngineLost, match=f"{FAILURES_MAX} times in a row, the last time: away"):
        lost.run()


def test_it_ends_in_time_and_keeps_the_pace():
    clock = [0.0]

    def sleep(seconds):
        clock[0] += seconds

    engine = oracle(world())
    live = Live(engine.world, Server(engine.recommend, engine.send, (EngineError,)), Limits(10**6, 30.0, 600.0, 0.0),
                now_s=lambda: clock[0], sleep=sleep)
    report = live.run()
    first = engine.world.requests.ts_ms
    due = int((first - first[0] < 30 * 600_000).sum())
    assert report["ended_by"] == "seconds" and abs(report["asked"] - due) <= 1 and due > 3


def test_against_the_engines_own_application(tmp_path, monkeypatch):
    """The real routes, checks and verdicts; what serves below them is in memory."""
    from tests.engine.world import InProcess
    from tests.engine.world import World as Services

    services = Services(tmp_path)
    try:
        made = Client.__init__
        monkeypatch.setattr(Client, "__init__", lambda self, url, **_: made(self, url, transport=InProcess(services.http.app)))
        asked = ["simulate", "--engine", "http://engine", "--users", "20", "--items", "60", "--days", "1", "--requests-max", "12",
                 "--page", "0.5", "--report", str(tmp_path / "r.json")]
        done = CliRunner().invoke(_app("simulate"), asked)
        assert done.exit_code == 0, done.output
        report = json.loads((tmp_path / "r.json").read_text())
    finally:
        services.close()
    assert done.exit_code == 0, done.output
    assert 0 < report["asked"] < 12 and report["asked"] + report["page"] == 12 and report["foreign"] == 8 * report["asked"]
    assert report["refused"] == report["failures"] == 0 and len(services.sent) >= 8 * report["page"] > 0
    assert all(record["user_id"].startswith("u0") for _, record in services.sent)


def test_an_engine_that_is_not_there_is_a_sentence():
    asked = ["simulate", "--engine", "http://127.0.0.1:9", "--users", "20", "--items", "60", "--days", "1"]
    done = CliRunner().invoke(_app("simulate"), asked)
    assert done.exit_code == 1 and "does not answer" in done.output and "Traceback" not in done.output
