"""A share of the negatives is learnt: the same ones whoever chooses, with scores that stay probabilities among all."""

import numpy as np
import pytest

from headrace.models import progressive
from headrace.models.batch import Batch
from headrace.models.catalog import MODELS
from headrace.models.choice import EVERY, Choice
from headrace.models.train import Trainer
from headrace.rpc.causes import Causes
from tests.models.worlds import FIELDS, Shards, causes_of, films

KEPT, RATE = 0.1, 0.05


class Rows:
    """A parameter server of one shard over small keys: AdaGrad with the squares that a trainer sends, and the sums of its metrics."""

    def __init__(self, keys, dim):
        self.rows = np.random.default_rng(1).normal(size=(keys, dim)).astype(np.float32) * 0.01
        self.rows[:, 0] = 0
        self.squares, self.counts, self.metrics = np.zeros_like(self.rows), np.zeros(keys, np.int64), {}
        self.dim = dim

    def pull(self, model, table, keys):
        return (self.rows[keys.astype(int)] if table == "weights" else self.counts[keys.astype(int), None]), 0

    def push(self, model, effect, causes, compute, newest=None):
        told = compute(np.arange(len(causes)))
        keys, grads = told["weights"][0].astype(int), told["weights"][1]
        self.squares[keys] += grads[:, self.dim:]
        self.rows[keys] -= RATE * grads[:, : self.dim] / (np.sqrt(self.squares[keys]) + 1e-8)
        self.counts[told["counts"][0].astype(int)] += told["counts"][1][:, 0]
        for key, count in zip(told["metrics"][0].tolist(), told["metrics"][1][:, 0].tolist(), strict=True):
            self.metrics[key] = self.metrics.get(key, 0) + count

    def summary(self, window):
        return progressive.summary(np.array([self.metrics.get(key, 0) for key in progressive.keys_of(progressive.MODEL, window).tolist()]))


def rare(count=300_000, users=400, items=250, seed=4):
    """One in some twenty exposures is clicked, by user, item and taste."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, count), rng.integers(0, items, count)
    logit = -3.6 + 0.7 * rng.normal(size=users)[user] + 0.7 * rng.normal(size=items)[item] + np.where(user % 2 == item % 2, 0.5, -0.5)
    keys = np.stack([np.zeros(count), 1 + user, 1 + users + item], 1).astype(np.uint64)
    label = (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return Batch(keys, np.ones(keys.shape, np.float32), label, np.ones(count, np.float32)), 1 + users + items


def learnt(batch, keys, choice, kept=None):
    """Figures of the second half, each sample scored before it was learnt, and the server."""
    server = Rows(keys, 9)
    trainer = Trainer(MODELS["fm"](FIELDS), server.pull, server.push, l2=0.005, window_offsets=len(batch) // 2, rate=RATE,
                      kept=choice.kept if kept is None else kept)
    for start in range(0, len(batch), 256):
        at = np.arange(start, min(start + 256, len(batch)))
        part, causes = batch.take(at), causes_of(at)
        part = part.weighed(choice.sampled(part.weight, part.label, causes))
        trainer.learn(part, causes, np.full(len(at), 0.5, np.float32))
    return server.summary(1), server


def test_a_tenth_of_the_negatives_teaches_the_probabilities_that_all_teach():
    batch, keys = rare()
    whole, server = learnt(batch, keys, EVERY)
    tenth, fewer = learnt(batch, keys, Choice(KEPT))
    assert tenth["samples"] == whole["samples"] == len(batch) // 2, "what is left out is scored"
    assert tenth["calibration"] == pytest.approx(whole["calibration"], rel=0.02)
    assert tenth["calibration"] == pytest.approx(1.0, abs=0.02) and tenth["logloss"] < 1.03 * whole["logloss"] < tenth["logloss_base_rate"]
    assert tenth["auc"] > whole["auc"] - 0.02 > 0.6
    learnt_now = (batch.label > 0) | (Choice(KEPT).sampled(batch.weight, batch.label, causes_of(np.arange(len(batch)))) > 0)
    assert fewer.counts.sum() == 3 * learnt_now.sum() < 0.15 * server.counts.sum()
    uncorrected, _ = learnt(batch, keys, Choice(KEPT), kept=1.0)
    assert uncorrected["calibration"] > 4, "the correction is what does it"


def test_who_is_left_out_is_told_by_the_cause_alone():
    rng = np.random.default_rng(3)
    causes = Causes(np.full(20_000, 77, np.int32), rng.integers(0, 8, 20_000).astype(np.int32), np.arange(20_000))
    weight, label = np.full(20_000, 0.5, np.float32), (rng.random(20_000) < 0.3).astype(np.float32)
    made = Choice(KEPT).sampled(weight, label, causes)
    assert set(made[label > 0].tolist()) == {0.5} and (made[label < 1] > 0).mean() == pytest.approx(KEPT, abs=0.01)
    order = rng.permutation(20_000)
    assert (Choice(KEPT).sampled(weight[order], label[order], causes.take(order)) == made[order]).all()
    watched = progressive.sampled(*causes, 0.25)
    assert (made[watched & (label < 1)] > 0).mean() == pytest.approx(KEPT, abs=0.02), "independent of who is watched"
    assert EVERY.sampled(weight, label, causes) is weight and EVERY.active(weight, label) is weight


def test_users_shown_too_little_are_left_out():
    made = Choice(shown_min=3.0).active(np.array([1, 2, 1], np.float32), np.array([0, 2.99, 3], np.float32))
    assert made.tolist() == [0, 0, 1] and made.dtype == np.float32


def test_a_sample_that_is_left_out_is_applied_and_scored_and_makes_no_row():
    batch, shards = films(40), Shards()
    batch = batch.weighed(np.where(np.arange(40) < 10, 1, 0).astype(np.float32))
    trainer = Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=0.1, rate=0.1)
    trainer.learn(batch, causes_of(np.arange(40)), np.full(40, 0.5, np.float32))
    keys, counts = np.unique(batch.keys[:10], return_counts=True)
    found = {key: count for key, count in shards.sums("counts").items() if count}  # this double makes rows where they are pulled
    assert found == dict(zip(keys.tolist(), counts.tolist(), strict=True))
    assert all(applied == set(range(40)) for applied in shards.applied)
    sums = shards.sums("metrics")
    assert progressive.summary(np.array([sums.get(key, 0) for key in progressive.keys_of(progressive.MODEL).tolist()]))["samples"] == 40
    none = []
    Trainer(MODELS["fm"](FIELDS), shards.pull, lambda *told: none.append(told[3](np.arange(5))), l2=0.1).learn(
        batch.take(np.arange(20, 25)), causes_of(np.arange(5)), np.full(5, 0.5, np.float32))
    assert [len(none[0][table][0]) for table in ("weights", "counts")] == [0, 0] and len(none[0]["metrics"][0]) > 0
