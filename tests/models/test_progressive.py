import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.models import progressive
from headrace.ps.kernels import slots_of
from tests import naive_models as naive


def folded(*parts):
    sums = {}
    for keys, counts in parts:
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            sums[key] = sums.get(key, 0) + count
    return sums


def read(sums, series, window=progressive.TOTAL):
    return progressive.summary(np.array([sums.get(key, 0) for key in progressive.keys_of(series, window).tolist()]))


@given(st.integers(0, 2**31), st.sampled_from([-6.0, -1.0, 0.0, 3.0]))
@settings(deadline=None, max_examples=15)
def test_auc_is_within_a_thousandth_of_exact(seed, shift):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=2000) + shift
    label = (rng.random(2000) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    label[:2] = 0, 1
    p = (1 / (1 + np.exp(-logits))).astype(np.float32)
    out = read(folded(progressive.increments(0, np.zeros(2000, np.int64), p, label)), 0)
    exact = float(np.mean(np.where(label > 0.5, -np.log(p), -np.log1p(-p))))
    # Pairs of one bin count half, whichever is ahead: that is all that can be wrong, and with very few positives more than a thousandth.
    bins = progressive.bins_of(p)
    alike = sum(int(((bins == at) & (label > 0.5)).sum() * ((bins == at) & (label < 0.5)).sum()) for at in np.unique(bins))
    most = alike / (label.sum() * (2000 - label.sum())) / 2
    assert abs(out["auc"] - naive.auc(p.tolist(), label.tolist())) < (0.001 if shift > -6 else max(0.001, most + 1e-9))
    assert out["samples"] == 2000 and out["positives"] == int(label.sum())
    assert out["logloss"] == pytest.approx(exact, abs=1e-4)
    assert out["calibration"] == pytest.approx(float(p.sum() / label.sum()), abs=1e-4)
    rate = float(label.mean())
    assert out["logloss_base_rate"] == pytest.approx(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))


def test_windows_and_series_are_apart_and_add_up():
    p, label = np.array([0.9, 0.2, 0.6], np.float32), np.array([1, 0, 1], np.float32)
    window = np.array([0, 1, 1 << 30])
    sums = folded(progressive.increments(0, window, p, label), progressive.increments(1, window, 1 - p, label))
    assert [read(sums, 0, w)["samples"] for w in (0, 1, progressive.WINDOW_MAX, progressive.TOTAL)] == [1, 1, 1, 3]
    assert read(sums, 0)["auc"] == 1.0 and read(sums, 1)["auc"] == 0.0
    assert read(sums, 2)["samples"] == 0


def test_parts_merge_in_any_order():
    rng = np.random.default_rng(3)
    p, label, window = rng.random(500, np.float32), (rng.random(500) < 0.3).astype(np.float32), np.arange(500) // 100
    whole = folded(progressive.increments(0, window, p, label))
    parts = [progressive.increments(0, window[at], p[at], label[at]) for at in np.array_split(rng.permutation(500), 7)]
    assert folded(*parts) == whole


def test_nothing_to_divide_by():
    out = progressive.summary(np.zeros(2 * (progressive.BINS + 2), np.int64))
    assert out["samples"] == 0 and out["auc"] is None and out["logloss"] is None and out["calibration"] is None


def test_certain_and_wrong_stays_finite():
    keys, counts = progressive.increments(0, np.zeros(2, np.int64), np.array([1.0, 0.0], np.float32), np.array([0, 1], np.float32))
    assert np.isfinite(read(folded((keys, counts)), 0)["logloss"]) and len(set(keys.tolist())) == len(keys)


def test_edges_bound_the_bins():
    p = np.array([0.001, 0.3, 0.5, 0.77])
    at, edges = progressive.bins_of(p), progressive.edges()
    assert ((edges[at] <= p) & (p < edges[at + 1])).all()


def test_all_bins_of_a_window_live_in_one_slot_and_windows_spread():
    windows = (*range(100), progressive.TOTAL)
    slots = [set(slots_of(progressive.keys_of(series, window)).tolist()) for series in (0, 1) for window in windows]
    assert all(len(held) == 1 for held in slots)
    assert len(set().union(*slots)) > 40


def test_no_two_keys_meet():
    keys = np.concatenate([progressive.keys_of(series, window) for series in (0, 1, 255) for window in (0, 1, 2, 77, progressive.TOTAL)])
    assert len(np.unique(keys)) == len(keys)
