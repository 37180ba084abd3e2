"""The bench of strategies: nothing is learnt before it is known, each label once, and a prediction knows only what came before."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from headrace.bench.strategies import ORACLE, STRATEGIES, Plan, exposures, lessons, logloss, predicted, rows
from headrace.config import Model
from headrace.models.kernels import CONFIRMED, PROVISIONAL, WHOLE


@pytest.fixture(scope="module")
def log():
    return exposures(Plan(users=40, items=150, days=1, settled=12), seed=3)


def test_the_log_has_clicks_of_hours_later_and_features_of_before_them(log):
    late = log.click_ms - log.ts_ms
    assert (np.diff(log.ts_ms) >= 0).all() and 0 < log.label.mean() < 0.3
    assert (late[log.label > 0] <= log.window_ms).all() and np.median(late[log.label > 0]) > 600_000
    assert len(log.keys) == len(log.values) == len(log.label)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "fast"])
def test_each_exposure_is_learnt_once_and_not_before_its_label_is_known(log, strategy):
    told = lessons(log, strategy)
    assert (np.diff(told.at_ms) >= 0).all() and sorted(told.exposure.tolist()) == list(range(len(log.label)))
    np.testing.assert_array_equal(told.label, log.label[told.exposure])
    known = np.where(told.label > 0, log.click_ms[told.exposure], log.ts_ms[told.exposure] + log.window_ms)
    assert (told.stage == WHOLE).all() and (strategy == ORACLE or (told.at_ms >= known).all())


def test_fast_learns_all_at_once_as_negatives_and_each_click_when_it_comes(log):
    told = lessons(log, "fast")
    first, second = told.stage == PROVISIONAL, told.stage == CONFIRMED
    assert sorted(told.exposure[first].tolist()) == list(range(len(log.label))) and not told.label[first].any()
    np.testing.assert_array_equal(told.at_ms[first], log.ts_ms[told.exposure[first]])
    assert sorted(told.exposure[second].tolist()) == np.nonzero(log.label)[0].tolist() and (told.label[second] == 1).all()
    np.testing.assert_array_equal(told.at_ms[second], log.click_ms[told.exposure[second]])
    with pytest.raises(ValueError, match="no strategy 'slow'"):
        lessons(log, "slow")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_prediction_knows_nothing_of_what_comes_later(log, strategy):
    middle = int(np.searchsorted(log.ts_ms, np.median(log.ts_ms)))
    known = log.click_ms < log.ts_ms[middle] if strategy != ORACLE else np.arange(len(log.label)) < middle
    turned = np.where(known | (np.arange(len(log.label)) < middle // 2), log.label, 1 - log.label).astype(np.float32)
    turned = np.where((log.label > 0) & ~known, log.label, turned)  # a click that was to come stays one
    other = log._replace(label=turned, click_ms=np.where(log.label > 0, log.click_ms, log.ts_ms + log.window_ms))
    before, after = (predicted(one, Model(), strategy) for one in (log, other))
    until = int(np.searchsorted(log.ts_ms, log.ts_ms[middle // 2]))
    np.testing.assert_array_equal(before[:until], after[:until])
    assert not np.array_equal(before, after)


def test_rows_are_of_the_oracle_and_calibration_is_of_what_is_settled(log):
    plan = Plan(users=40, items=150, days=1, settled=12)
    settled = log.ts_ms >= log.ts_ms[0] + 12 * 3_600_000
    rate = log.label[settled].mean()
    found = {name: np.where(settled, (1 + n) * rate, 0.9).astype(np.float32) for n, name in enumerate(STRATEGIES)}
    made = {row.name: row for row in rows(plan, log, found)}
    assert [made[f"calibration.{name}"].value for name in STRATEGIES] == pytest.approx([1, 2, 3, 4], rel=1e-4)
    assert made["logloss.wait.later"].of_value == made[f"logloss.{ORACLE}.later"].value == pytest.approx(
        logloss(found[ORACLE][settled], log.label[settled]))
    assert dataclasses.asdict(plan)["settled"] == 12
