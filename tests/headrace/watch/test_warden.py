"""What is found of features done: told the feature service, frozen, remembered over a restart, shown at /metrics and by the commands."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from headrace.features.feature_set import FeatureSet
from headrace.quality import Quality
from headrace.rpc.errors import Unavailable
from headrace.rpc.health import Health
from headrace.watch.exposed import Rate, Share
from headrace.watch.feature_figures import read, sentence
from headrace.watch.feature_quality import FeatureQuality
from headrace.watch.warden import Warden
from tests.ps.test_roles import free_ports

SET = FeatureSet.of((("f.toml", """
[feature.rate]
entity = "item"
reducer = "mean"
where = { action = "dwell" }
value = "value"
bounds = { min = 0, max = 1 }

[feature.seen]
entity = "user"
reducer = "count"
window = "1h"
"""),))


class Decisions:
    """The feature service, by what it is told."""

    def __init__(self):
        self.told, self.frozen, self.resets, self.away = [], {}, {}, False

    def masks(self):
        if self.away:
            raise Unavailable("nobody")
        return {"frozen": self.frozen, "resets": self.resets}

    def decide(self, decision, feature, by, why):
        self.masks()
        self.told.append((decision, feature, by, why))
        if decision == "freeze":
            self.frozen = {**self.frozen, feature: {}}
        return True


class Stage:
    def __init__(self, folder, **limits):
        self.now_ms, self.rng, self.decisions, self.offset = 1_000_000, np.random.default_rng(0), Decisions(), 0
        self.folder = folder
        self.limits = Quality(**{"samples_min": 50, "reference_min": 100, "reference_s": 5.0, **limits})
        self.begin()

    def begin(self):
        self.warden = Warden(SET, FeatureQuality(SET, self.limits), self.decisions, Share(1.0, 1e6, lambda: 0.0), Rate(1e6, lambda: 0.0),
                             self.folder, lambda: self.now_ms)

    def turn(self, rate=1.0, dwell=True, feature_set=SET.name):
        records = []
        for _ in range(100):
            self.offset += 1
            values, numbers = np.zeros(SET.F, "<f4"), self.rng.random(SET.K).astype(np.float32)
            numbers[SET.numbers.index("rate")] *= rate
            records.append((self.now_ms, {
                "source": 1, "partition": 0, "offset": self.offset, "action": "impression", "feature_set": feature_set,
                "feature_keys": SET.empty_keys.tobytes(), "feature_values": values.tobytes(), "numbers": numbers.tobytes()}))
        self.warden.expose(records)
        self.warden.happen([(self.now_ms, {"user_id": "u", "item_id": "i", "action": action, "scene": "", "value": 1.0, "context": {}})
                            for action in ("impression", "dwell") for _ in range(20) if dwell or action != "dwell"])
        self.now_ms += 5000
        return self.warden.turn()


@pytest.fixture
def stage(tmp_path):
    made = Stage(tmp_path / "quality")
    for _ in range(4):
        made.turn()
    assert made.decisions.told == []
    return made


def test_a_hard_break_is_told_and_freezes_once_and_a_person_has_the_last_word(stage):
    for _ in range(8):
        stage.turn(rate=3.0)
    assert [(decision, feature, by) for decision, feature, by, _ in stage.decisions.told] == [
        ("alarm", "rate", "watch"), ("freeze", "rate", "watch"), ("alarm", "rate", "watch")]
    assert stage.decisions.told[1][3].startswith("range: ") and stage.decisions.told[2][3].startswith("psi: ")
    stage.decisions.frozen = {}
    stage.turn(rate=3.0)
    stage.begin()
    for _ in range(8):
        stage.turn(rate=3.0)
    assert len(stage.decisions.told) == 3, "what a person has unfrozen is not frozen again, by the next process neither"
    for _ in range(8):
        stage.turn()
    assert {one[:2] for one in stage.decisions.told[3:]} == {("calm", "rate")}


def test_without_freeze_it_is_an_alarm_only(tmp_path):
    stage = Stage(tmp_path, freeze=False)
    for _ in range(6):
        stage.turn(rate=3.0)
    assert [one[0] for one in stage.decisions.told] == ["alarm"] and stage.warden.masked == ()


def test_what_could_not_be_told_is_told_when_the_service_is_back(stage):
    stage.decisions.away = True
    for _ in range(5):
        stage.turn(dwell=False)
    assert stage.decisions.told == []
    stage.decisions.away = False
    stage.turn(dwell=False)
    assert [one[:2] for one in stage.decisions.told] == [("alarm", "rate"), ("freeze", "rate")]


def test_a_reset_is_heard_and_samples_of_another_set_are_left_out(stage):
    assert stage.warden.quality.watched["rate"].reference is not None
    stage.decisions.resets = {"rate": 1}
    stage.warden.turn()
    assert stage.warden.quality.watched["rate"].reference is None and stage.warden.quality.watched["seen"].reference is not None
    before = stage.warden.quality.watched["seen"].now.n
    foreign = {"source": 1, "partition": 0, "offset": 1, "action": "impression", "feature_set": "other", "feature_keys": b"1"}
    stage.warden.expose([(0, foreign)])
    assert stage.warden.quality.watched["seen"].now.n == before


def test_a_state_that_is_torn_is_told_and_begins_anew(stage, caplog):
    stage.turn(rate=3.0)
    stage.turn(rate=3.0)
    file = stage.folder / "state.json"
    assert json.loads(file.read_text())["quality"]["features"]["rate"]["reference"]["n"] > 0
    file.write_text("{")
    stage.begin()
    assert "begin anew" in caplog.text and stage.warden.quality.watched["rate"].reference is None


def test_figures_are_at_metrics_and_read_back(stage):
    from prometheus_client import CollectorRegistry

    for _ in range(3):
        stage.turn(rate=3.0)
    registry, port = CollectorRegistry(), free_ports(1)[0]
    registry.register(stage.warden)
    health = Health(port, lambda: "", registry)
    try:
        found = read(port)
    finally:
        health.close()
    assert found is not None and set(found) == set(stage.warden.quality.watched)
    rate = found["rate"]
    assert rate["broken"] == ["range", "psi"] and rate["frozen"] == 1 and 2 < rate["max"] <= 3 and rate["null_rate"] == 0
    assert rate["age_seconds"] == pytest.approx(5) and rate["reference_samples"] >= 100 and "psi" in rate
    assert "min" not in found["item.0"] and found["item.0"]["null_rate"] == 1
    assert sentence(found) == ("features: beyond their bounds: rate (range, psi); frozen to their defaults: rate"
                               " (`headrace features stats`)")
    assert sentence({"a": {"broken": [], "frozen": 0.0}}) == "features: 1 are watched, all within their bounds"
    assert read(free_ports(1)[0]) is None


def test_it_goes_on_after_a_failure(stage, monkeypatch, caplog):
    stop, turns = threading.Event(), []

    def turn():
        turns.append(1)
        if len(turns) == 3:
            stop.set()
        raise RuntimeError("no")

    monkeypatch.setattr(stage.warden, "turn", turn)
    stage.warden.quality.limits.interval_s = 0.01
    stage.warden.keep_turning(stop)
    assert len(turns) == 3 and "could not be judged" in caplog.text
