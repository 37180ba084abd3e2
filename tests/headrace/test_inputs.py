"""Inputs that lose their values are told at once, by name, and what fills up by itself is not."""

import numpy as np
import pytest

from headrace.watch.downgrade import LIVE, Bounds, Guard
from headrace.watch.inputs import Inputs

NAMES, EMPTY = ("bias", "item_id", "lift"), np.array([7, 8, 9], np.uint64)
N = 200


def exposures(rng, shares, n=N):
    """n of them, in which slot s has no value with probability shares[s]."""
    gone = rng.random((n, 3)) < np.array(shares)
    keys = np.where(gone, EMPTY, EMPTY + np.uint64(100))
    keys[:, 2] = EMPTY[2]  # a number: its key is always that, its value tells
    return keys, np.where(gone, 0.0, 0.5).astype(np.float32)


def inputs(**more):
    return Inputs(NAMES, EMPTY, **{"least": 4, "samples_min": 500, "patience": 3, "memory": 50, **more})


def run(of, rng, shares, turns, n=N):
    """(turn, gaps told, slots back) of each turn that tells something."""
    told = []
    for turn in range(turns):
        of.add(*exposures(rng, shares, n))
        if any(found := of.turn()):
            told.append((turn, [gap.slot for gap in found[0]], found[1]))
    return told


@pytest.mark.parametrize("slot", [1, 2])
def test_a_slot_that_is_stuck_is_named_within_its_patience_and_told_when_it_is_back(slot):
    of, rng = inputs(), np.random.default_rng(1)
    usual, stuck = [0.0, 0.02, 0.1], [0.0, 0.02, 0.1]
    stuck[slot] = 1.0
    assert run(of, rng, usual, 60) == []
    (turn, gaps, back), = run(of, rng, stuck, 30)
    assert turn <= 5 and gaps == [NAMES[slot]] and back == []
    assert str(of.gaps[NAMES[slot]]).startswith(f"{NAMES[slot]} has no value in ")
    assert of.before[slot] < 0.15, "trouble is not taken for normal"
    (_, gaps, back), = run(of, rng, usual, 30)
    assert gaps == [] and back == [NAMES[slot]] and of.gaps == {}


def test_a_third_of_the_exposures_is_enough_and_what_is_usual_is_not():
    of, rng = inputs(), np.random.default_rng(2)
    run(of, rng, [0.0, 0.03, 0.3], 60)
    assert run(of, rng, [0.0, 0.04, 0.35], 300) == []
    assert [gaps for _, gaps, _ in run(of, rng, [0.0, 0.35, 0.35], 10)] == [["item_id"]]


def test_inputs_that_fill_up_and_a_rare_one_that_becomes_rarer_are_no_trouble():
    of, rng = inputs(), np.random.default_rng(3)
    for share in np.linspace(1.0, 0.05, 100):
        assert run(of, rng, [0.0, float(share), float(share)], 1) == []
    of = inputs()
    run(of, rng, [0.0, 0.97, 0.1], 60)
    assert run(of, rng, [0.0, 1.0, 0.1], 60) == []


def test_few_exposures_are_waited_for():
    of, rng = inputs(), np.random.default_rng(4)
    assert run(of, rng, [0.0, 0.0, 0.0], 49, n=10) == [] and of.missing is None
    run(of, rng, [0.0, 0.0, 0.0], 100, n=10)
    assert of.missing is not None
    assert [(gaps, 4 <= turn < 20) for turn, gaps, _ in run(of, rng, [0.0, 1.0, 0.0], 60, n=10)] == [(["item_id"], True)]


def test_the_guard_tells_it_keeps_serving_where_it_is_and_publishes_nothing():
    guard, rng = Guard(Bounds(every_s=60, window_s=120, samples_min=500, patience=3), {}, (NAMES, EMPTY)), np.random.default_rng(5)
    steps, now_s = {"before": [], "while": [], "after": []}, 0.0

    def go(when, shares, turns):
        nonlocal now_s
        for _ in range(turns):
            now_s += 30
            guard.see(*exposures(rng, shares))
            p = rng.uniform(0.1, 0.5, N)
            guard.add((rng.random(N) < p).astype(float), {LIVE: p.astype(np.float32)})
            steps[when] += guard.tick(now_s, LIVE, False, {})

    go("before", [0.0, 0.0, 0.1], 40)
    assert {step.kind for step in steps["before"]} == {"publish"}
    go("while", [0.0, 1.0, 0.1], 40)
    assert steps["while"][0].kind in ("alarm", "publish") and [s.kind for s in steps["while"]].count("alarm") == 1
    alarm = next(n for n, step in enumerate(steps["while"]) if step.kind == "alarm")
    assert "inputs: item_id has no value in" in steps["while"][alarm].reason
    assert not steps["while"][alarm + 1:], "no version is published meanwhile"
    go("after", [0.0, 0.0, 0.1], 40)
    kinds = [step.kind for step in steps["after"]]
    assert kinds[0] == "calm" and "item_id has values again" in steps["after"][0].reason and "publish" in kinds
    again = Guard(guard.bounds, {}, (NAMES, EMPTY))
    again.restore(guard.state(), now_s, {})
    assert np.allclose(again.inputs.before, guard.inputs.before)
    other = Guard(guard.bounds, {}, (("bias", "other", "lift"), EMPTY))
    other.restore(guard.state(), now_s, {})
    assert other.inputs.before is None, "of another set of slots nothing is known"
