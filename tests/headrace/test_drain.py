"""Drain, report and clock against a small stack in memory: topics as lists, shards as numbers, metrics as a dictionary."""

from __future__ import annotations

from dataclasses import replace

import httpx
import numpy as np
import pytest

from headrace.clock import ClockRefused, EngineUnavailable, StackClock, State, agree
from headrace.drain import Stuck, drain
from headrace.models import progressive
from headrace.replay import Sent
from headrace.report import report
from headrace.taps import Mark, Taps

SENT = Sent(rows=6, impressions=6, actions=2, digest="d")
NAMES = ("rows", "interactions_sent", "interactions_decoded", "impressions", "actions", "dead_letters", "samples", "samples_applied",
         "duplicates_dropped", "seconds", "events_per_s", "model", "auc", "auc_popularity", "logloss", "logloss_base_rate", "calibration",
         "windows")


class World:
    """A stack with two shards; partition 0 of each topic."""

    def __init__(self) -> None:
        self.topics: dict[str, list[dict]] = {name: [] for name in ("interactions", "enriched", "samples", "dead-letters")}
        self.applied = [0, 0]
        self.duplicates = self.retried = 0
        self.metrics: dict[int, int] = {}

    def taps(self) -> Taps:
        return Taps(
            model="fm", window_offsets=4, highs=lambda topic: {0: len(self.topics[topic])},
            read=lambda topic, start, stop: iter(self.topics[topic][start.get(0, 0) : stop[0]]),
            stats=lambda: [{"models": {"fm": {"applied": count + 3, "effects": {"click": count, "click.provisional": 3}},
                                       "lr": {"applied": 9}}, "duplicates": self.duplicates}
                           for count in self.applied],
            retries=lambda: self.retried, counts=lambda keys: np.array([self.metrics.get(int(key), 0) for key in keys], np.int64))

    def event(self, action: str, *, refused: str = "", label: float = 0.0, probability: float = 0.5) -> None:
        """One interaction all the way through, or to its dead letter."""
        offset = len(self.topics["interactions"])
        self.topics["interactions"].append({})
        if refused == "bad_ts":
            self.topics["dead-letters"] += [{"topic": "interactions", "partition": 0, "offset": offset, "reason": refused}] * 2
            return
        self.topics["enriched"] += [{"partition": 0, "offset": offset, "action": action}] * 2
        if refused:
            self.topics["dead-letters"].append({"topic": "interactions", "partition": 0, "offset": offset, "reason": refused})
        elif action == "impression":
            self.topics["samples"] += [{"source": 1, "partition": 0, "offset": offset, "label": label}] * 2
            self.applied = [count + 1 for count in self.applied]
            for series, score in ((progressive.MODEL, probability), (progressive.POPULARITY, 1 - probability)):
                keys, counts = progressive.increments(series, np.array([offset // 4]), np.array([score], np.float32),
                                                      np.array([label], np.float32))
                for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
                    self.metrics[key] = self.metrics.get(key, 0) + count


def fill(world: World) -> None:
    for label in (1.0, 0.0, 0.0, 1.0):
        world.event("impression", label=label, probability=0.8 if label else 0.3)
        if label:
            world.event("click")
    world.event("heartbeat")


def test_the_report_counts_from_outside_and_from_the_mark_on():
    world = World()
    world.event("impression", label=1.0, probability=0.01)  # an earlier life of the stack: wrong, and not of this replay
    world.event("click")
    mark = Mark.of(world.taps())
    fill(world)
    world.event("impression", refused="bad_ts")
    world.event("impression", refused="late")
    world.duplicates, world.retried = 3, 1
    figures = report(SENT, mark, world.taps(), 2.0)
    assert set(NAMES) <= set(figures)
    assert (figures["rows"], figures["interactions_sent"], figures["events_per_s"]) == (6, 8, 4.0)
    assert (figures["interactions_decoded"], figures["dead_letters"]) == (7, 1)
    assert figures["interactions_sent"] == figures["interactions_decoded"] + figures["dead_letters"]
    assert (figures["impressions"], figures["actions"]) == (5, 2)
    assert (figures["samples"], figures["positives"], figures["samples_applied"]) == (4, 2, [4, 4])
    assert figures["dead_letters_by_reason"] == {"bad_ts": 1, "late": 1}
    assert figures["duplicates_dropped"] == 2 * 3 + 1  # by each shard, and a retry
    assert (figures["auc"], figures["auc_popularity"]) == (1.0, 0.0)
    assert figures["logloss_base_rate"] == pytest.approx(np.log(2))
    assert figures["calibration"] == pytest.approx((0.8 * 2 + 0.3 * 2) / 2, abs=1e-5)
    assert [window["samples"] for window in figures["windows"]] == [1, 3]
    assert sum(window["samples"] for window in figures["windows"]) == figures["samples"]


class Steps:
    """A clock that each sleep moves, and runs what is due."""

    def __init__(self, *work) -> None:
        self.now, self.work = 0.0, list(work)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.work:
            self.work.pop(0)()


def test_drain_ends_when_every_shard_has_applied_all():
    world = World()
    mark = Mark.of(world.taps())
    seen = []
    clock = Steps(lambda: fill(world), lambda: setattr(world, "applied", [6, 5]), lambda: setattr(world, "applied", [6, 6]))
    at = drain(SENT, mark, world.taps(), clock=clock, sleep=clock.sleep, moved_to=seen.append)
    assert at.applied == (6, 6) and clock.now == pytest.approx(0.6)
    assert [min(progress.applied) for progress in seen] == [0, 4, 5, 6]


def test_heartbeats_that_go_on_are_no_movement():
    """Under the clock `now` the engine's heartbeats grow `enriched` for ever."""
    world = World()
    mark = Mark.of(world.taps())
    clock = Steps(lambda: fill(world), *[lambda: world.event("heartbeat")] * 1000)
    with pytest.raises(Stuck, match="the train job: of 6 samples"):
        drain(SENT, mark, world.taps(), clock=clock, sleep=clock.sleep)


def test_dead_letters_and_retries_stand_for_samples_once_all_is_quiet():
    world = World()
    mark = Mark.of(world.taps())
    clock = Steps(lambda: fill(world), lambda: world.event("impression", refused="late"), lambda: setattr(world, "retried", 1))
    assert drain(SENT, mark, world.taps(), clock=clock, sleep=clock.sleep).applied == (4, 4)
    assert 3.0 <= clock.now < 5.0


def test_a_file_that_came_before_ends_although_heartbeats_go_on():
    world = World()
    mark = Mark.of(world.taps())
    clock = Steps(lambda: setattr(world, "retried", 80), *[lambda: world.topics["enriched"].append({"action": "heartbeat"})] * 1000)
    drain(Sent(rows=60, impressions=60, actions=20, digest="d"), mark, world.taps(), clock=clock, sleep=clock.sleep)
    assert clock.now < 5.0, "not once heartbeats have filled the place of what was sent"


@pytest.mark.parametrize(("grown", "applied", "says"), [
    ((3, 0), [0, 0], "the features job has passed on 3 of 8 interactions"),
    ((8, 2), [0, 0], "the samples job has closed 2 of 6 impressions"),
    ((8, 6), [6, 1], "the train job: of 6 samples shard 1 has applied 1"),
])
def test_the_stuck_hop_is_named(grown, applied, says):
    world = World()
    mark = Mark.of(world.taps())
    world.topics["enriched"], world.topics["samples"], world.applied = [{}] * grown[0], [{}] * grown[1], applied
    clock = Steps()
    with pytest.raises(Stuck, match=says):
        drain(SENT, mark, world.taps(), clock=clock, sleep=clock.sleep)
    assert 60 <= clock.now < 61


def test_of_several_targets_an_exposure_has_several_samples():
    world = World()
    taps = replace(world.taps(), targets=3)
    mark = Mark.of(taps)
    world.topics["enriched"], world.topics["samples"] = [{}] * 8, [{}] * 7
    clock = Steps()
    with pytest.raises(Stuck, match="the samples job has closed 2 of 6 impressions"):
        drain(SENT, mark, taps, clock=clock, sleep=clock.sleep)


def test_an_older_file_is_refused_with_both_times_and_the_ways_out():
    agree(State(), "log", 1, 2, "f")
    agree(State("log", 5), "log", 5005, 9000, "f")
    agree(State("now", 5), "now", 1, 2, "f")
    with pytest.raises(ClockRefused) as error:
        agree(State("log", 893286638000), "log", 874724710000, 893286637999, "old.parquet")
    for text in ("event time is 1998-04-22", "old.parquet runs from 1997-09-20 03:05:10 UTC to 1998-04-22", "headrace up --data DIR"):
        assert text in str(error.value)
    assert "--clock now" not in str(error.value)  # it would be refused here: a stack has one clock


@pytest.mark.parametrize(("mode", "asked"), [("now", "log"), ("log", "now")])
def test_one_clock_a_run(mode, asked):
    with pytest.raises(ClockRefused, match=f"runs on the clock '{mode}'.*replay with --clock {mode}"):
        agree(State(mode, 0), asked, 1, 2, "f")


def test_the_clock_talks_to_the_engine():
    held = {"mode": None, "ts_ms": None}

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/clock"
        if request.method == "POST":
            if b"now" in request.content:
                return httpx.Response(409, json={"detail": "the clock is log"})
            held.update(mode="log", ts_ms=7)
        return httpx.Response(200, json=held)

    clock = StackClock("http://engine/", httpx.Client(transport=httpx.MockTransport(answer)))
    assert clock.state() == State()
    clock.set("log", 7)
    assert clock.state() == State("log", 7)
    with pytest.raises(ClockRefused, match="the clock is log"):
        clock.set("now", 1)
    clock.close()
    with pytest.raises(EngineUnavailable, match="headrace up"):
        StackClock("http://127.0.0.1:1").state()
