"""Features against their bounds on a made stream: what is injected is named by its name, and nothing else is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headrace.features.feature_set import FeatureSet
from headrace.quality import Quality
from headrace.watch.feature_quality import DEFAULT, DRIFT, NULL, RANGE, STALE, FeatureQuality

FILE = """
[feature.presses]
entity = "user"
reducer = "count"
where = { action = "click" }
window = "1d"
bounds = { default_rate = 0.9 }

[feature.rate]
entity = "item"
reducer = "ratio"
where = { action = "click" }
over = { action = "impression" }
half_life = "7d"
bounds = { min = 0.0, max = 1.0 }

[feature.dwell]
entity = "item"
reducer = "mean"
where = { action = "dwell" }
value = "value"

[feature.genres]
entity = "user"
reducer = "top_n"
where = { action = "click" }
value = "item.genre"
n = 2
bounds = { null_rate = 0.5 }

[feature.shown]
entity = "item"
reducer = "count"
where = { action = "impression" }
"""
SET = FeatureSet.of((("f.toml", FILE),))
PRESSES, RATE, DWELL, SHOWN = (SET.numbers.index(name) for name in ("presses", "rate", "dwell", "shown"))
GENRES = SET.slots.index("genres.0")
A_TURN, EVENTS = 200, 40  # exposures and clicks, dwells


class Stream:
    """Intervals of 5 s of a world that stands still, until a test changes what comes: `spoil` the samples, `silent` actions."""

    def __init__(self, seed=0, **limits):
        self.rng, self.now_ms, self.spoil, self.silent = np.random.default_rng(seed), 1_000_000, lambda values, numbers: None, ()
        self.quality = FeatureQuality(SET, Quality(**{"reference_s": 50.0, "reference_min": 2000, **limits}))

    def turn(self):
        keys = self.rng.integers(1 << 40, 1 << 63, (A_TURN, SET.F), np.int64).view(np.uint64)
        keys[:, GENRES:] = self.rng.choice(np.arange(1, 9, dtype=np.uint64) << np.uint64(60), (A_TURN, SET.F - GENRES))
        values, numbers = np.ones((A_TURN, SET.F), np.float32), self.rng.random((A_TURN, SET.K)).astype(np.float32)
        numbers[:, PRESSES] = self.rng.poisson(1.0, A_TURN)
        numbers[:, DWELL] = self.rng.gamma(2.0, 5.0, A_TURN)
        self.spoil(values, numbers)
        self.quality.add(keys, values, numbers)
        actions = [(action, n) for action, n in (("impression", A_TURN), ("click", EVENTS), ("dwell", EVENTS)) if action not in self.silent]
        self.now_ms += 5000
        self.quality.sources.add([(self.now_ms, {"user_id": f"u{n}", "item_id": "i", "action": action, "scene": "", "value": 3.0,
                                                 "context": {"item.genre": "war"}}) for action, count in actions for n in range(count)])
        return self.quality.turn(self.now_ms)

    def turns(self, count):
        return [one for _ in range(count) for one in self.turn()]

    def until_found(self, most=12):
        """(seconds, findings) of the first interval with one; 12 are a minute."""
        for number in range(1, most + 1):
            found = self.turn()
            if found:
                return number * 5, found
        raise AssertionError(f"nothing within {most * 5} s")


@pytest.fixture
def stream():
    made = Stream()
    assert made.turns(30) == []
    return made


def named(found):
    return {(one.feature, one.bound, one.hard) for one in found if one.broken}


def test_an_injected_drift_is_named_within_a_minute_and_nothing_else_is(stream):
    def spoil(values, numbers):
        numbers[:, DWELL] *= 3

    stream.spoil = spoil
    seconds, found = stream.until_found()
    assert seconds <= 60 and named(found) == {("dwell", DRIFT, False)} and "median" in found[0].why
    assert stream.turns(12) == [], "it is told once"
    stream.spoil = lambda values, numbers: None
    back = stream.until_found()[1]
    assert [(one.feature, one.bound, one.broken) for one in back] == [("dwell", DRIFT, False)]


def test_a_burst_of_nan_is_named_as_nulls(stream):
    def spoil(values, numbers):
        numbers[::10, RATE] = np.nan

    stream.spoil = spoil
    seconds, found = stream.until_found()
    assert seconds <= 30 and named(found) == {("rate", NULL, True)}


def test_values_out_of_range_ids_that_are_gone_and_defaults_are_each_named():
    for name, bound, place in (("rate", RANGE, RATE), ("presses", DEFAULT, PRESSES), ("genres", NULL, None)):
        stream = Stream(1)
        stream.turns(2)

        def spoil(values, numbers, name=name, place=place):
            if place is None:
                values[:, GENRES:] = 0
            else:
                numbers[:, place] = 0 if name == "presses" else 1.5

        stream.spoil = spoil
        seconds, found = stream.until_found()
        assert seconds <= 60 and named(found) == {(name, bound, True)}, found


def test_a_dead_source_is_named_within_a_minute_with_all_that_hangs_on_it(stream):
    stream.silent = ("dwell",)
    seconds, found = stream.until_found()
    assert seconds <= 60 and named(found) == {("dwell", STALE, True)} and "expected" in found[0].why
    assert stream.quality.watched["dwell"].age_s == pytest.approx(seconds, abs=0.1)
    stream.silent = ("click",)
    again = stream.turn()
    assert [(one.feature, one.broken) for one in again] == [("dwell", False)]
    assert named(stream.until_found()[1]) == {(name, STALE, True) for name in ("presses", "rate", "genres")}


def test_nothing_is_dead_because_nobody_is_there(stream):
    for _ in range(100):
        stream.now_ms += 5000
        assert stream.quality.turn(stream.now_ms) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_stationary_stream_gives_no_alarm(seed):
    stream = Stream(10 + seed)
    assert stream.turns(240) == [], "twenty minutes"
    assert all(one.reference is not None for one in stream.quality.watched.values())


def test_what_counts_for_ever_may_grow(stream):
    grown = [0.0]

    def spoil(values, numbers):
        grown[0] += 1
        numbers[:, SHOWN] += grown[0]

    stream.spoil = spoil
    assert stream.turns(30) == []
    assert stream.quality.watched["shown"].psi > 1


def test_a_reference_that_is_reset_takes_what_is_there_for_normal(stream):
    def spoil(values, numbers):
        numbers[:, DWELL] *= 3

    stream.spoil = spoil
    stream.until_found()
    stream.quality.reset("dwell")
    told = stream.turns(30)
    assert [(one.feature, one.broken) for one in told] == [("dwell", False)]
    assert stream.quality.watched["dwell"].psi < 0.1


def test_what_is_known_comes_back_from_json_and_is_not_told_again(stream):
    stream.silent = ("dwell",)
    stream.until_found()
    state = json.loads(json.dumps(stream.quality.state()))
    other = Stream(5)
    other.silent = ("dwell",)
    other.quality.restore(state)
    assert other.quality.watched["rate"].reference is not None
    assert other.turns(10) == [], "of a source that is still dead nothing is known anew"
    other.silent = ()
    assert [(one.feature, one.broken) for one in other.turns(3)] == [("dwell", False)]


def test_an_exposure_too_few_says_nothing():
    stream = Stream(samples_min=100_000)

    def spoil(values, numbers):
        numbers[:] = np.nan

    stream.spoil = spoil
    assert stream.turns(40) == []
