"""Bench train.quality: exact scores, Vowpal Wabbit on our samples, and the logs that it finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench import quality_data, scores, train_quality, vowpal
from headrace.bench.quality_data import Log
from headrace.bench.run import BenchNeeds
from headrace.features.layout import SLOTS, F
from headrace.models.batch import Batch
from headrace.movielens import DataError
from headrace.rpc.causes import Causes
from tests import naive_models as naive


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.booleans()), min_size=2, max_size=30))
def test_auc_is_exact_with_ties(pairs):
    labels = [label for _, label in pairs]
    if any(labels) and not all(labels):
        score = np.array([score for score, _ in pairs])
        assert scores.auc(score, np.array(labels, np.float32)) == pytest.approx(naive.auc(score.tolist(), labels))


def test_logloss_clips_all_alike():
    assert scores.logloss(np.array([0.5, 0.5]), np.array([1, 0])) == pytest.approx(np.log(2))
    assert scores.logloss(np.array([0.0]), np.array([1])) == pytest.approx(-np.log(scores.CLIP))


def log(n=600, seed=4):
    """Users and items who differ in how much they are clicked; bias, two ids and a number of 0.25, every other slot empty."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 20, n), rng.integers(0, 30, n)
    label = (rng.random(n) < 1 / (1 + np.exp(np.sin(user) * 2 + np.cos(item) * 2))).astype(np.float32)
    keys, values = np.tile(np.arange(F, dtype=np.uint64) << np.uint64(40), (n, 1)), np.zeros((n, F), np.float32)
    for slot, key, value in (("bias", 0, 1), ("user_id", user, 1), ("item_id", item, 1), ("user_lift", 0, 0.25)):
        at = SLOTS.index(slot)
        keys[:, at] += np.asarray(key, np.uint64)
        values[:, at] = value
    batch = Batch(keys, values, label, np.ones(n, np.float32))
    causes = Causes(np.ones(n, np.int32), np.zeros(n, np.int32), np.arange(n, dtype=np.int64))
    popularity = np.full(n, 0.5, np.float32)
    return Log("made", [(batch, causes, popularity)], batch, popularity)


def test_vowpal_wabbit_gets_the_slots_that_have_a_value_and_no_label_early():
    made = log(200)
    lines = vowpal.lines(made.batch)
    assert lines[0].startswith(("1 | ", "-1 | ")) and len(lines[0].split("|")[1].split()) == 4 and ":0.25" in lines[0]
    one = vowpal.progressive(lines, vowpal.NO_CONSTANT)
    assert one[0] == 0.5
    changed = [*lines[:100], ("-1" if lines[100].startswith("1 ") else "1") + lines[100][lines[100].index(" ") :], *lines[101:]]
    other = vowpal.progressive(changed, vowpal.NO_CONSTANT)
    assert (one[:101] == other[:101]).all() and (one[101:] != other[101:]).any()


def test_linear_ftrl_is_vowpal_wabbits():
    rows = {row.name: row for row in train_quality._ftrl(log(), 500)}
    ours, theirs = rows["logloss.lr_ftrl.made"].value, rows["logloss.vw_ftrl.made"].value
    assert ours == pytest.approx(theirs, abs=1e-5) and ours < rows["logloss.vw_ftrl.made"].of_value - 0.01


def test_rows_name_all_learners_and_their_peers():
    rows = train_quality._rows(log(), 1, 300)
    names = ["fm", "fm_no_counters", "lr", "vw", "vw_same_features", "popularity"]
    assert [row.name for row in rows] == [
        *(f"{figure}.{name}.made" for name in names for figure in ("auc", "logloss")), "logloss.lr_ftrl.made", "logloss.vw_ftrl.made"]
    auc = {row.name: row for row in rows}
    assert auc["auc.fm.made"].of == "auc.vw_same_features" and auc["auc.fm.made"].of_value == auc["auc.vw_same_features.made"].value
    assert 0.55 < auc["auc.lr.made"].value < 0.95


def test_masks_leave_out_what_the_feature_shard_counts():
    ids, fields = ([SLOTS[i] for i in np.nonzero(mask())[0]] for mask in (quality_data.ids, quality_data.fields))
    assert ids == ["user_id", "item_id", *(f"context.{n}" for n in range(4))]
    assert set(fields) - set(ids) == {"bias", *(f"user.{n}" for n in range(4)), *(f"item.{n}" for n in range(6))}
    only = log(50).only(quality_data.ids())
    assert (only.batch.values.sum(axis=1) == 2).all() and (only.parts[0][0].values == only.batch.values).all()


def test_a_log_that_is_not_there_is_named(tmp_path, monkeypatch):
    def nothing(to):
        raise DataError("pip is off")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quality_data.movielens, "get", nothing)
    with pytest.raises(BenchNeeds, match=r"movielens was left out: pip is off; kuairand was left out: .*--data DIR"):
        train_quality.measure(True, tmp_path)
