"""The bench of simulated worlds: fair to all policies, its arithmetic by hand, and the product learns in it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from headrace.bench import world as bench
from headrace.bench import world_policies
from headrace.bench.world import Course, Plan, interval, rows
from headrace.bench.world_policies import explored, run
from headrace.config import Model
from headrace.simulator.scenario import load
from headrace.simulator.world import World

PLAN = Plan(seeds=2, users=60, items=300, days=4, half=1.0, end=1.0, shock_day=2.5, shocked=1.0)


@pytest.fixture(scope="module")
def small():
    return World(load("calm").sized(30, 150, 2), 5)


class Oracle:
    def __init__(self, world, folder, model):
        self.world, self.labels = world, []

    def score(self, request, items):
        requests = self.world.requests
        return self.world.click_probability(int(requests.user[request]), items, int(requests.ts_ms[request]))

    def shown(self, request, items, top, outcome, label):
        assert len(top) == len(label) == len(set(top.tolist())) and not (label & ~outcome.reported).any()

    def close(self):
        pass


def test_an_oracle_reaches_the_optimum_but_for_exploration(small, tmp_path, monkeypatch):
    monkeypatch.setitem(world_policies.POLICIES, "oracle", Oracle)
    optimum = small.optimum(small.candidate_probabilities())
    np.testing.assert_allclose(run(small, "oracle", tmp_path, Model(), explore=0.0), optimum)
    with_chance = run(small, "oracle", tmp_path, Model())
    assert (with_chance <= optimum + 1e-12).all() and 0.9 < with_chance.sum() / optimum.sum() < 0.99


def test_a_click_that_comes_after_the_window_is_no_label(tmp_path, monkeypatch):
    seen = []

    class Listening(Oracle):
        def shown(self, request, items, top, outcome, label):
            seen.append((outcome.reported & (outcome.delay_ms > 21_600_000), label))

    monkeypatch.setitem(world_policies.POLICIES, "listening", Listening)
    run(World(load("delay").sized(60, 150, 3), 5), "listening", tmp_path, Model())
    late, label = (np.concatenate(column) for column in zip(*seen, strict=True))
    assert late.any() and label.any() and not (late & label).any()


def test_exploration_is_the_same_for_all_and_has_its_share():
    order = np.arange(50)
    lists = np.array([explored(1, request, order, 8, 0.05) for request in range(2000)])
    assert all(len(set(row)) == 8 for row in lists.tolist())
    changed = (lists != order[:8]).mean()
    assert 0.04 < changed < 0.07
    other = np.array([explored(1, request, order[::-1], 8, 0.05) for request in range(2000)])
    assert np.array_equal(49 - other, lists)
    assert explored(1, 0, order, 8, 0.0).tolist() == list(range(8)) and len(explored(1, 0, order[:3], 8, 1.0)) == 3


@pytest.mark.parametrize("name", ["popularity", "online", "daily"])
def test_policies_beat_chance_and_repeat(small, name, tmp_path):
    truth = small.candidate_probabilities()
    by_chance = small.expected(np.full((1, small.slots), truth.mean()))[0] * len(truth)
    first = run(small, name, tmp_path / "a", Model())
    assert np.array_equal(first, run(small, name, tmp_path / "b", Model()))
    late = small.day(small.requests.ts_ms) >= 1
    assert first[late].sum() > 1.1 * by_chance * late.mean() and (first <= small.optimum(truth) + 1e-9).all()


def test_a_daily_copy_knows_nothing_on_its_first_day_and_something_on_its_second(small, tmp_path):
    daily, online = (run(small, name, tmp_path / name, Model()) for name in ("daily", "online"))
    day = small.day(small.requests.ts_ms)
    assert daily[day < 1].sum() < online[day < 1].sum() and daily[day >= 1].mean() > daily[day < 1].mean()


def made(before, after, back_h):
    """A request each minute; the share lost is `before`, then `after` for `back_h` hours from the shock on, then `before` again."""
    day = np.arange(0, PLAN.days, 1 / 1440)
    hours = (day - PLAN.shock_day) * 24
    lost = np.where((hours >= 0) & (hours < back_h), after, before)
    return Course(day, np.full(len(day), 2.0), 2.0 * (1 - lost))


def test_shares_and_recoveries_are_those_made():
    one = made(0.2, 0.4, 3.0)
    assert one.lost(0, 2) == pytest.approx(0.2) and one.lost(2.5, 2.5 + 3 / 24) == pytest.approx(0.4)
    # The last 12 hours hold x hours at 0.4: at most 0.22 from x = 1.2 on, which is when the window has left 3 - 1.2 hours behind.
    hours, came = one.recovery_h(PLAN, one.before(PLAN))
    assert came and hours == pytest.approx(14, abs=1)
    assert made(0.2, 0.2, 0).recovery_h(PLAN, 0.2) == (12, True)
    assert made(0.2, 0.4, 100).recovery_h(PLAN, 0.2) == (36, False)
    assert made(0.2, 0.4, 100).recovery_h(PLAN, 0.4) == (12, True)


def test_rows_say_who_is_better():
    of = {"online": [made(0.2, 0.3, 3), made(0.22, 0.3, 4)], "daily": [made(0.25, 0.4, 12), made(0.24, 0.4, 100)],
          "popularity": [made(0.4, 0.5, 9)] * 2, "random": [made(0.7, 0.7, 0)] * 2}
    found = {row.name: row for row in rows(PLAN, of, Model())}
    assert found["regret.online.end"].value == pytest.approx(0.21) and found["regret.online.week1"].ratio == pytest.approx(0.7 / 0.21)
    assert found["regret.daily.end"].ratio < 1 and found["regret.popularity.end"].of == "online"
    assert found["recovery.online"].ratio > 1 > found["recovery.daily"].ratio
    assert "not within the 36 h there were in 1 of 2" in found["recovery.daily"].note and "not within" not in found["recovery.online"].note
    # The worse level, the daily copy's 0.25 and 0.24, for both: what was better before is as good again sooner.
    assert found["recovery.daily.common"].value == found["recovery.daily"].value
    assert found["recovery.online.common"].value < found["recovery.online"].value
    assert "the daily copy's before" in found["recovery.online.common"].note
    assert "less that of online: 0.0350 [" in found["regret.daily.end"].note
    assert found["clicks.online.end"].value == pytest.approx(2 * 0.79 / 8)


def test_an_interval_is_students():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    half = 3.182 * values.std(ddof=1) / 2
    assert interval(values) == f"2.5000 [{2.5 - half:.4f}, {2.5 + half:.4f}]"


def test_a_plan_puts_the_shock_where_it_says():
    world = dataclasses.replace(PLAN, users=20, items=60).world(0)
    assert world.scenario.shock is not None and world.scenario.shock.day == 2.5 and world.scenario.size.days == 4
    assert bench.FULL.seeds == 10 and bench.FULL.shock_day >= 14
