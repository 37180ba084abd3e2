"""The watch on feeds in memory: who is sampled, what is scored and when, what River says, and the role's /metrics."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest

from headrace.config import Config
from headrace.features.layout import SLOTS, F
from headrace.models.catalog import MODELS
from headrace.models.progressive import BINS, SAMPLED, keys_of, sampled, summary
from headrace.models.train import Trainer
from headrace.roles import watch
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server
from headrace.streaming.model_inputs import inputs_of
from headrace.watch import exposed
from headrace.watch.figures import Figures, read
from headrace.watch.watcher import Tally, Watcher
from tests import naive_models as naive
from tests.models.worlds import FIELDS, Shards, causes_of, films
from tests.ps.test_roles import free_ports

river_peer = pytest.importorskip("headrace.watch.river_peer", reason="River is not installed")
BIAS, USER = SLOTS.index("bias"), SLOTS.index("user_id")


def exposure(offset, user=0, action="impression"):
    """An enriched record: bias and the user's id."""
    keys, values = np.arange(F, dtype=np.uint64) << np.uint64(32), np.zeros(F, np.float32)
    keys[USER] += np.uint64(user)
    values[[BIAS, USER]] = 1.0
    return {"source": 3, "partition": 1, "offset": offset, "action": action, "feature_keys": keys.tobytes(), "numbers": b"",
            "feature_values": values.tobytes()}


def sample(offset, label, target="click"):
    return {"source": 3, "partition": 1, "offset": offset, "target": target, "label": float(label)}


class Flat:
    """A learner that remembers what it was taught, and detectors that find a drift at every tenth sample."""

    def __init__(self):
        self.learnt, self.updates = [], []

    def predict(self, keys, values):
        return 0.25

    def learn(self, keys, values, label):
        self.learnt.append((int(keys[USER] & np.uint64(0xFFFF)), label))

    def update(self, logloss, residual):
        self.updates.append((logloss, residual))
        return [("adwin", "logloss")] if len(self.updates) % 10 == 0 else []


class Stage:
    """A watcher with clocks that stand still until they are set."""

    def __init__(self, share=1.0, rate_max=1000.0):
        self.now_ms, self.clock_s, self.flat, self.found, self.broken = 1000, 0.0, Flat(), [], False
        self.watcher = Watcher(self.score, self.flat, self.flat, lambda *what: self.found.append(what), inputs=inputs_of(), target="click",
                               share=share, rate_max=rate_max, now_ms=lambda: self.now_ms, clock_s=lambda: self.clock_s)

    def score(self, batch):
        if self.broken:
            raise OSError("no replica")
        return np.full(len(batch), 0.75, np.float32)

    def expose(self, *records):
        self.watcher.expose([(0, record) for record in records])

    def settle(self, *records, appended_ms=2000):
        self.watcher.settle([(appended_ms, record) for record in records])


def test_both_are_scored_on_what_they_said_at_the_exposure():
    stage = Stage()
    stage.expose(exposure(1, 7), exposure(2, 8), exposure(3, action="click"))
    stage.settle(sample(1, 1), sample(2, 0), sample(3, 1), sample(1, 1))
    assert stage.watcher.outcomes == {"scored": 2, "capped": 0, "failed": 0, "late": 0}
    assert stage.flat.learnt == [(7, True), (8, False)]
    assert stage.flat.updates == [(pytest.approx(-np.log(0.75)), pytest.approx(-0.25)), (pytest.approx(-np.log(0.25)), pytest.approx(0.75))]
    assert stage.watcher.learner.figures() == stage.watcher.theirs.figures()  # this one does not learn
    assert stage.watcher.theirs.figures()["logloss"] == pytest.approx(-np.log(0.25 * 0.75) / 2, abs=1e-5)


def test_what_was_predicted_after_its_sample_stood_is_not_scored_and_still_learnt():
    stage = Stage()
    stage.expose(exposure(1), exposure(2))
    stage.settle(sample(1, 1), appended_ms=999)
    stage.settle(sample(2, 1), appended_ms=1000)
    assert (stage.watcher.outcomes["late"], stage.watcher.outcomes["scored"], len(stage.flat.learnt)) == (1, 1, 2)


def test_another_target_and_an_unknown_cause_are_passed_over():
    stage = Stage()
    stage.expose(exposure(1))
    stage.settle(sample(1, 1, "like"), sample(5, 1))
    assert stage.watcher.outcomes["scored"] == 0 and stage.flat.learnt == []
    stage.settle(sample(1, 1))
    assert stage.watcher.outcomes["scored"] == 1


def test_the_rate_is_capped_before_a_label_is_known():
    stage = Stage(rate_max=3.0)
    stage.expose(*(exposure(n) for n in range(5)))
    stage.clock_s = 0.7
    stage.expose(*(exposure(n) for n in range(5, 10)))
    assert stage.watcher.outcomes["capped"] == 2 + 3
    stage.settle(*(sample(n, 1) for n in range(10)))
    assert stage.watcher.outcomes["scored"] == 5


def chosen(share, offsets, partition=1):
    return sampled(np.full(len(offsets), 3, np.int32), np.full(len(offsets), partition, np.int32), np.asarray(offsets, np.int64), share)


def test_a_share_is_chosen_by_cause():
    offsets = np.arange(20_000)
    quarter = chosen(0.25, offsets)
    assert 0.23 < quarter.mean() < 0.27 and chosen(0.5, offsets)[quarter].all() and chosen(1.0, offsets).all()
    assert len({bool(chosen(0.5, [5], partition)[0]) for partition in range(40)}) == 2
    stage = Stage(share=0.25)
    stage.expose(*(exposure(n) for n in range(100)))
    stage.settle(*(sample(n, 0) for n in range(100)))
    assert stage.watcher.outcomes["scored"] == quarter[:100].sum()


def test_training_scores_the_same_share_in_a_series_of_its_own():
    batch, shards, causes = films(400), Shards(), causes_of(np.arange(400))
    trainer = Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=0.0, rate=0.1, share=0.25)
    scores = trainer.learn(batch, causes, np.full(400, 0.5, np.float32))
    sums, of = shards.sums("metrics"), sampled(*causes, 0.25)
    figures = summary(np.array([sums.get(key, 0) for key in keys_of(SAMPLED).tolist()]))
    assert figures["samples"] == of.sum() > 50 and figures["positives"] == batch.label[of].sum()
    assert figures["auc"] == pytest.approx(naive.auc(scores[of].tolist(), batch.label[of].tolist()), abs=0.01)


def test_a_replica_that_is_away_costs_its_exposures_and_nothing_else():
    stage = Stage()
    stage.broken = True
    with pytest.raises(OSError):
        stage.expose(exposure(1), exposure(2))
    stage.broken = False
    stage.expose(exposure(3))
    stage.settle(sample(1, 1), sample(3, 1))
    assert stage.watcher.outcomes == {"scored": 1, "capped": 0, "failed": 2, "late": 0}


def test_exposures_without_a_sample_are_forgotten_oldest_first(monkeypatch):
    monkeypatch.setattr(exposed, "PENDING_MAX", 3)
    stage = Stage()
    stage.expose(*(exposure(n) for n in range(5)))
    stage.settle(*(sample(n, 1) for n in range(5)))
    assert stage.watcher.outcomes["scored"] == 3


def test_a_drift_is_told():
    stage = Stage()
    stage.expose(*(exposure(n) for n in range(25)))
    stage.settle(*(sample(n, 1) for n in range(25)))
    assert stage.found == [("adwin", "logloss")] * 2


def test_a_tally_is_the_definition():
    rng, tally = np.random.default_rng(2), Tally()
    scores, labels = rng.random(300), rng.random(300) < 0.4
    losses = [tally.add(float(score), bool(label)) for score, label in zip(scores, labels, strict=True)]
    figures = tally.figures()
    assert figures["auc"] == pytest.approx(naive.auc(scores.tolist(), labels.tolist()), abs=2e-3)
    assert figures["logloss"] == pytest.approx(np.mean(losses), abs=1e-5) and figures["positives"] == labels.sum()
    assert tally.add(0.0, True) == pytest.approx(-np.log(1e-7))


def test_river_learns_and_finds_a_change_and_none_where_there_is_none():
    rng, peer = np.random.default_rng(0), river_peer.Peer()
    keys, values = np.array([1, 2, 2], np.uint64), np.array([1.0, 0.5, 0.5], np.float32)
    assert peer.predict(keys, values) == 0.5
    for _ in range(200):
        peer.learn(keys, values, True)
    assert peer.predict(keys, values) > 0.8
    drifts = river_peer.Drifts()
    for _ in range(3000):
        assert drifts.update(0.5 + 0.01 * rng.normal(), 0.01 * rng.normal()) == []
    found = {what for _ in range(1000) for what in drifts.update(1.5 + 0.01 * rng.normal(), 0.7 + 0.01 * rng.normal())}
    assert found == {(kind, of) for kind in ("adwin", "page_hinkley") for of in ("logloss", "calibration")}
    assert all(drifts.found.values())


def test_the_role_reads_its_feeds_asks_the_replica_and_shows_figures(caplog):
    replica_port, http_port = free_ports(2)
    config = Config()
    config.replica.addresses, config.watch.http_port, config.watch.share = [f"127.0.0.1:{replica_port}"], http_port, 1.0
    owner = Owner("replica")
    owner.start()
    config.ps.addresses = config.replica.addresses
    asked = []

    def pull(header, arrays):
        asked.append(header["table"])
        if header["table"] == "metrics":  # what training adds after the watch began: 10 of each label, parted rightly
            values = np.full((len(arrays["keys"]), 1), 7, np.int64)
            if asked.count("metrics") > 1:
                values[[5, BINS + 2 + 2000], 0] += 10
            return {"sequence": 1}, {"values": values}
        rows = np.zeros((len(arrays["keys"]), 9), np.float32)
        rows[arrays["keys"] == (np.uint64(USER) << np.uint64(32)) + np.uint64(1), 0] = 2.0  # user 1 clicks more
        return {"sequence": 1, "age_ms": 1}, {"values": rows}

    server = Server("127.0.0.1", replica_port, {"pull": pull}, owner)
    users, exposed = np.arange(400) % 2, threading.Event()
    labels = np.where(users == 1, np.arange(400) % 10 != 1, np.arange(400) % 10 == 0)
    labels[300:] = ~labels[300:]  # what was so is so no longer
    tried = []

    def exposures(take, stop):
        tried.append(1)
        if len(tried) == 1:
            raise OSError("the broker is away")
        take([(0, exposure(n, int(users[n]))) for n in range(400)])
        exposed.set()
        stop.wait(10)

    def samples(take, stop):
        assert exposed.wait(10)
        take([(2**60, sample(n, labels[n])) for n in range(400)])
        stop.wait(10)

    with caplog.at_level(logging.WARNING):
        stop = watch.start(config, 0, exposures, samples)
        try:
            until = time.monotonic() + 20
            while ((seen := read(http_port)) is None or seen.scored.get("ours served", 0) < 400) and time.monotonic() < until:
                time.sleep(0.02)
        finally:
            stop()
            server.shutdown()
            owner.stop()
    assert seen.scored == {"ours learnt": 20, "river learnt": 400, "ours served": 400, "river served": 400} and asked.count("weights") == 1
    assert seen.auc["ours served"] == pytest.approx(0.65, abs=0.001) and seen.auc["river served"] == 0.5
    assert seen.auc["ours learnt"] == 1.0 and seen.auc["river learnt"] > 0.55
    assert seen.drifts["adwin of logloss"] >= 1 and "drift: adwin says that the logloss of fm has changed" in caplog.text
    assert "over 20 (400) samples" in seen.sentence() and "adwin of logloss" in seen.sentence()


def test_figures_before_anything_came():
    assert read(free_ports(1)[0], 0.2) is None
    assert Figures().sentence() == "watch: 0 samples, too few for an AUC"
