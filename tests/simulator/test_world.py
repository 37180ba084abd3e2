"""The world: seeded, plausible, and its truth is the truth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.simulator.dice import uniform
from headrace.simulator.scenario import Scenario, Tastes, load, names
from headrace.simulator.sessions import NONE
from headrace.simulator.tastes import DAY_MS, STEP_MS
from headrace.simulator.world import World
from tests.simulator.worlds import world


@pytest.fixture(scope="module")
def calm():
    return world()


def logit_of(w, user, item, ts_ms):
    """The click model again, in plain Python, from the docstring of clicks.py."""
    c, items = w.scenario.clicks, w.items
    step = min(max((ts_ms - w.start_ms) // STEP_MS, 0), w.drift.steps - 1)
    part = ts_ms // 21_600_000 % 4
    logit = c.base + items.quality[item]
    for topic in range(w.scenario.size.topics):
        logit += items.topics[item, topic] * (float(w.drift.users[step, user, topic]) + w.drift.trend[step, topic]
                                              + w.model._daypart[part, topic])
    if items.author[item] in w.users.favourites[user].tolist():
        logit += c.author_bonus
    logit += c.fresh_bonus * math.exp(-(ts_ms - items.born_ms[item]) / 3_600_000 / c.fresh_h)
    if w.users.language[user] != items.language[item]:
        logit += c.foreign_language
    return logit


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_probability_is_the_formula(calm, data):
    w = calm
    user = data.draw(st.integers(0, len(w.users) - 1))
    ts_ms = w.start_ms + data.draw(st.integers(0, 8 * DAY_MS - 1))
    items = np.arange(len(w.items))
    p = w.click_probability(user, items, ts_ms)
    live = set(w.items.live(ts_ms).tolist())
    for item in data.draw(st.lists(st.sampled_from(items.tolist()), min_size=1, max_size=5)):
        wanted = 1 / (1 + math.exp(-logit_of(w, user, item, ts_ms))) if item in live else 0.0
        assert p[item] == pytest.approx(wanted, abs=1e-6)


def test_the_best_list_has_more_expected_clicks_than_any_other(calm):
    rng = np.random.default_rng(0)
    ts_ms = calm.start_ms + 3 * DAY_MS
    best = calm.best(4, 8, ts_ms)
    most = calm.expected(calm.click_probability(4, best, ts_ms))
    live = calm.items.live(ts_ms)
    assert set(best.tolist()) <= set(live.tolist()) and len(set(best.tolist())) == 8
    others = [calm.expected(calm.click_probability(4, rng.permutation(live)[:8], ts_ms)) for _ in range(200)]
    assert most >= max(others) and most > calm.expected(calm.click_probability(4, best[::-1], ts_ms))
    assert calm.best(4, 3, ts_ms, live[:2]).tolist() == sorted(live[:2].tolist(), key=lambda i: -calm.click_probability(4, [i], ts_ms)[0])


def test_the_optimum_of_requests_is_that_of_best(calm):
    truth = calm.candidate_probabilities()
    optimum = calm.optimum(truth)
    for request in range(0, len(calm.requests), 97):
        user, ts_ms = int(calm.requests.user[request]), int(calm.requests.ts_ms[request])
        best = calm.best(user, 8, ts_ms, calm.requests.of(request))
        assert optimum[request] == pytest.approx(calm.expected(calm.click_probability(user, best, ts_ms)))


def test_items_are_born_and_die_and_candidates_are_alive(calm):
    items, requests = calm.items, calm.requests
    counts = [len(items.live(calm.start_ms + day * DAY_MS)) for day in range(8)]
    assert min(counts) > 0.4 * max(counts) and (items.dies_ms > calm.start_ms).all() and (items.born_ms < calm.end_ms).all()
    there = requests.candidates != NONE
    item, ts_ms = np.maximum(requests.candidates, 0), requests.ts_ms[:, None]
    assert ((items.born_ms[item] <= ts_ms) & (ts_ms < items.dies_ms[item]))[there].all()
    assert all(len(set(requests.of(n).tolist())) == len(requests.of(n)) for n in range(0, len(requests), 53))


def test_requests_are_in_time_order_and_users_differ(calm):
    requests = calm.requests
    assert (np.diff(requests.ts_ms) >= 0).all() and requests.ts_ms[0] >= calm.start_ms and requests.ts_ms[-1] < calm.end_ms
    counts = np.bincount(requests.user, minlength=len(calm.users))
    assert counts.max() > 3 * np.median(counts) > 0
    hour = requests.ts_ms // 3_600_000 % 24
    assert np.bincount(hour, minlength=24)[[19, 20, 21]].sum() > 3 * np.bincount(hour, minlength=24)[[2, 3, 4]].sum()


@pytest.mark.parametrize("name", names())
def test_click_rates_are_plausible(name):
    w = world(name, users=150, items=600)
    truth = w.candidate_probabilities()[~w.requests.bot]
    chance = w.expected(truth[:, : w.slots]).mean() / w.slots
    best = w.optimum(truth).mean() / w.slots
    assert 0.03 < chance < 0.12 and 0.1 < best < 0.35


def test_clicks_come_as_often_as_the_truth_says():
    w = world(users=200, items=400)
    request, place = np.nonzero(w.requests.candidates[:, :8] != NONE)
    item = w.requests.candidates[request, place].astype(np.int64)
    user, ts_ms = w.requests.user[request], w.requests.ts_ms[request]
    done = w.answer(request, item, place, ts_ms, user)
    p = w.model.attraction(user, item, ts_ms) * w.model.examination(place)
    for at in (place == 0, place == 7, p > np.quantile(p, 0.9), p < np.median(p)):
        sigma = math.sqrt((p[at] * (1 - p[at])).sum())
        assert abs(done.clicked[at].sum() - p[at].sum()) < 4 * sigma
    assert not (done.clicked & ~done.examined).any() and (done.reported == done.clicked).all()
    assert not (done.like & ~done.clicked).any() and not (done.hide & done.clicked).any()
    assert np.median(done.delay_ms) == pytest.approx(1000 * w.scenario.actions.delay_s, rel=0.05)


def test_a_place_is_examined_less_the_lower_it_is(calm):
    np.testing.assert_allclose(calm.model.examination(np.array([0, 3, 8])), [1, 1 / 2, 1 / 3])
    assert calm.expected(np.array([0.2, 0.0, 0.0, 0.4])) == pytest.approx(0.2 + 0.4 / 2)


def test_an_exposure_has_one_outcome_whoever_chose_it(calm):
    item = np.array([5, 9, 5])
    whole = calm.answer(np.full(3, 7), item, np.arange(3), np.full(3, calm.start_ms), np.full(3, 2))
    one = calm.answer(np.array([7]), item[1:2], np.array([1]), np.array([calm.start_ms]), np.array([2]))
    assert all(column[1] == alone[0] for column, alone in zip(whole, one, strict=True))


def test_chances_are_even():
    drawn = uniform(1, "x", np.repeat(np.arange(200), 200), np.tile(np.arange(200), 200))
    assert drawn.min() >= 0 and drawn.max() < 1 and len(np.unique(drawn)) == len(drawn)
    assert np.abs(np.histogram(drawn, 20, (0, 1))[0] - 2000).max() < 250
    square = drawn.reshape(200, 200)
    assert abs(np.corrcoef(square[:-1].ravel(), square[1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(square[:, :-1].ravel(), square[:, 1:].ravel())[0, 1]) < 0.03
    assert not np.array_equal(drawn, uniform(2, "x", np.repeat(np.arange(200), 200), np.tile(np.arange(200), 200)))


def test_tastes_drift_as_fast_as_said_and_keep_their_spread():
    scenario = dataclasses.replace(Scenario(), tastes=Tastes(half_life_days=2.0, cohort_scale=0.0)).sized(users=2000, items=50, days=4)
    users = World(scenario, 1).drift.users
    first, half = users[0].ravel(), users[16].ravel()
    assert np.corrcoef(first, half)[0, 1] == pytest.approx(0.5, abs=0.02)
    assert users[-1].std() == pytest.approx(first.std(), rel=0.02)
    still = dataclasses.replace(scenario, tastes=Tastes(half_life_days=0.0, trend_half_life_days=0.0))
    drift = World(still.sized(users=50), 1).drift
    assert (drift.users == drift.users[0]).all() and (drift.trend == drift.trend[0]).all()


def test_a_shock_changes_some_users_at_once_and_nothing_before():
    shocked, same = world("shock", days=10), World(dataclasses.replace(load("shock"), shock=None).sized(60, 200, 10), 3)
    at = 60
    assert np.array_equal(shocked.drift.users[:at], same.drift.users[:at])
    assert np.array_equal(shocked.drift.trend[:at], same.drift.trend[:at])
    moved = np.abs(shocked.drift.users[at] - same.drift.users[at]).max(axis=1) > 0.1
    assert 0.1 < moved.mean() < 0.5 and not np.allclose(shocked.drift.trend[at], same.drift.trend[at])
    assert np.array_equal(shocked.requests.ts_ms, same.requests.ts_ms)
    assert np.array_equal(shocked.requests.candidates, same.requests.candidates)


def test_a_cold_start_is_a_wave():
    w = world("cold-start", users=300, items=400, days=10)
    first = np.array([w.requests.ts_ms[w.requests.user == user].min(initial=w.end_ms) for user in range(len(w.users))])
    late = w.users.arrives_ms > w.start_ms
    assert 0.2 < late.mean() < 0.4 and (first[late] >= w.start_ms + 7 * DAY_MS).all()
    born = np.floor((w.items.born_ms - w.start_ms) / DAY_MS)
    assert (born == 7).sum() > 2 * (born == 5).sum()


def test_spam_is_clicked_by_bots_and_by_few_others():
    w = world("spam-attack", users=100, items=300)
    requests, spam = w.requests, np.arange(len(w.items) - 10, len(w.items))
    assert (requests.user[requests.bot] >= 100).all() and (requests.user[~requests.bot] < 100).all()
    day = w.day(requests.ts_ms[requests.bot])
    assert day.min() >= 5 and day.max() < 7 and len(day) > 1000
    assert set(requests.of(int(np.nonzero(requests.bot)[0][0])).tolist()) == set(spam.tolist())
    n = np.full(10, int(np.nonzero(requests.bot)[0][0]))
    assert w.answer(n, spam, np.arange(10), requests.ts_ms[n], requests.user[n]).reported.all()
    assert w.click_probability(0, spam, w.start_ms + 6 * DAY_MS).mean() < 0.03


def test_poisoned_labels_turn_within_their_days_only():
    w = world("poisoned-labels", users=200, items=300)
    requests = w.requests
    n = np.arange(len(requests))
    done = w.answer(n, requests.candidates[:, 0].astype(np.int64), np.zeros(len(n), int), requests.ts_ms, requests.user)
    day = w.day(requests.ts_ms)
    turned = done.reported != done.clicked
    within = (day >= 5) & (day < 7)
    assert turned[within].mean() == pytest.approx(0.3, abs=0.05) and not turned[~within].any()
    assert turned[within & done.clicked].mean() == pytest.approx(0.3, abs=0.15)  # clicks go silent too


def test_an_outage_has_its_hours():
    w = world("outage")
    lost = w.lost(w.start_ms + (np.array([7.39, 7.4, 7.64, 7.66]) * DAY_MS).astype(np.int64))
    assert lost.tolist() == [False, True, True, False] and not world("calm").lost(w.requests.ts_ms).any()
