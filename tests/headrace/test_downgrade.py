"""The guard on made-up streams: what it sees, when it steps back, to what, and when it returns. No clock but the one it is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.watch.downgrade import LABELS, LIVE, MODEL, Bounds, Guard, crowded
from headrace.watch.page_hinkley import PageHinkley
from headrace.watch.windows import Window, Windows

BOUNDS = Bounds(every_s=600, interval_s=30, window_s=90, samples_min=1500, patience=3, return_after=5, memory_s=3600)
SAMPLES = 800


def logistic(x):
    return 1 / (1 + np.exp(-x))


class Stream:
    """A guard over a stream whose truth is known. `noise` by version is in log-odds and added to the truth; `turned` labels say the
    opposite; `base` is the truth's mean log-odds. Versions are published when it says so, as good as live is then."""

    def __init__(self, seed=0, bounds=BOUNDS):
        self.rng, self.bounds = np.random.default_rng(seed), bounds
        self.guard = Guard(bounds, {"page_hinkley": PageHinkley().update})
        self.now_s, self.serving, self.pinned, self.base, self.turned = 0.0, LIVE, False, -2.0, 0.0
        self.noise, self.shift, self.made, self.steps, self.served = {LIVE: 0.3}, {}, {}, [], []

    def turn(self, times=1):
        for _ in range(times):
            logit = self.base + self.rng.normal(0, 1.2, SAMPLES)
            label = self.rng.random(SAMPLES) < logistic(logit)
            label ^= self.rng.random(SAMPLES) < self.turned
            by_version = {version: logistic(logit + self.shift.get(version, 0.0) + self.rng.normal(0, noise, SAMPLES))
                          for version, noise in self.noise.items() if version == LIVE or version in self.made}
            self.guard.add(label.astype(float), by_version)
            self.now_s += self.bounds.interval_s
            steps = self.guard.tick(self.now_s, self.serving, self.pinned, self.made)
            for step in steps:
                if step.kind == "serve":
                    self.serving = step.version
                elif step.kind == "publish":
                    self.publish()
            for number in crowded(self.made, self.bounds.keep, self.now_s, frozenset({self.serving})):
                del self.made[number]
            self.steps.append(steps)
            self.served.append(self.serving)
        return self

    def publish(self):
        number = max(self.made, default=0) + 1
        self.made[number], self.noise[number] = self.now_s, self.noise[LIVE]

    def kinds(self, last=None):
        return [step.kind for steps in self.steps[-(last or len(self.steps)):] for step in steps]

    def settled(self, versions=2):
        while sum(one.good is True for one in self.guard.known.values()) < versions:
            self.turn()
            assert len(self.steps) < 500
        return self


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 20), parts=st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_a_window_is_the_definition(seed, parts):
    rng, windows, labels, scores = np.random.default_rng(seed), Windows(1, len(parts), 1), [], {0: [], 3: []}
    for n in parts:
        label = rng.random(n) < 0.3
        found = {version: rng.random(n) for version in scores}
        windows.add(label.astype(float), found)
        labels.append(label)
        for version, one in found.items():
            scores[version].append(one)
        window = windows.turn()
    y = np.concatenate(labels)
    p = {version: np.concatenate(one) for version, one in scores.items()}
    loss = {version: np.array([-np.log(a if t else 1 - a) for a, t in zip(one, y, strict=True)]) for version, one in p.items()}
    assert window.samples == len(y) and window.has(0) and window.has(3) and not window.has(1)
    rate = (y.sum() + 0.5) / (len(y) + 1)
    assert window.base_rate == pytest.approx(rate) and window.log_odds == pytest.approx(np.log(rate / (1 - rate)))
    assert window.loss(3) == pytest.approx(loss[3].mean())
    assert window.entropy(0) == pytest.approx(loss[0].mean() / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))
    assert window.calibration(3) == pytest.approx(p[3].sum() / (y.sum() + 0.5))
    gain, errors = window.better(3, 0)
    difference = loss[0] - loss[3]
    assert gain == pytest.approx(difference.mean() / loss[0].mean(), abs=1e-9)
    if len(y) > 2:
        assert errors == pytest.approx(difference.mean() / (difference.std() / np.sqrt(len(y))), rel=1e-4, abs=1e-6)
    assert window.better(0, 0) == (0.0, 0.0)


def test_a_window_is_as_long_as_its_samples_need_and_a_late_version_is_not_judged_before_it_fills_one():
    windows, label = Windows(30, 60, 100), np.zeros(40)
    sizes = []
    for turn in range(6):
        windows.add(label, {0: np.full(40, 0.5)} | ({5: np.full(40, 0.5)} if turn > 3 else {}))
        sizes.append(windows.turn())
    assert sizes[:2] == [None, None] and [window.samples for window in sizes[2:]] == [120] * 4
    assert not sizes[5].has(5) and sizes[5].intervals == 3
    windows.add(label, {0: np.full(40, 0.5), 5: np.full(40, 0.5)})
    assert windows.turn().has(5)
    assert Windows(30, 60, 100).turn() is None


def test_our_page_hinkley_is_rivers():
    drift = pytest.importorskip("river.drift")
    rng, ours, theirs, found = np.random.default_rng(1), PageHinkley(), drift.PageHinkley(mode="up"), 0
    for value in np.concatenate([rng.gamma(1, 0.3, 3000), rng.gamma(1, 0.5, 3000), rng.gamma(1, 0.2, 2000),
                                 rng.gamma(1, 0.6, 2000)]).tolist():
        theirs.update(value)
        said = ours.update(value)
        assert said == theirs.drift_detected
        found += said
    assert found >= 2


@pytest.mark.parametrize("seed", range(4))
def test_a_clean_stream_publishes_and_never_moves(seed):
    """Four hours, the base rate swinging as days do."""
    stream = Stream(seed)
    for turn in range(480):
        stream.base = -2.0 + 0.15 * np.sin(turn / 60)
        stream.turn()
    assert set(stream.served) == {LIVE} and not {"serve", "alarm", "stuck"} & set(stream.kinds())
    assert stream.kinds().count("publish") == pytest.approx(23, abs=2) and all(one.good is not False for one in stream.guard.known.values())


def test_live_breaks_and_the_newest_good_version_serves_until_live_is_better_for_long_enough():
    stream = Stream().settled()
    newest = max(number for number, one in stream.guard.known.items() if one.good)
    stream.noise[LIVE] = 2.0
    stream.turn(8)
    assert stream.serving == newest and stream.kinds(8).count("serve") == 1
    alarm = next(step for steps in stream.steps for step in steps if step.kind == "alarm")
    assert alarm.reason.startswith("model: live's log-loss") and alarm.figures["samples"] >= 1500 and "entropy.live" in alarm.figures
    published = stream.kinds().count("publish")
    stream.turn(60)
    assert stream.serving == newest and stream.kinds().count("publish") == published  # nothing of a broken live is published
    stream.noise[LIVE] = 0.0
    since = len(stream.served)
    while stream.serving == newest and len(stream.served) < since + 60:
        stream.turn()
    assert stream.serving == LIVE and len(stream.served) - since >= BOUNDS.return_after
    stream.turn(60)
    assert set(stream.served[-60:]) == {LIVE} and "calm" in stream.kinds()


def test_a_version_that_is_bad_too_is_passed_over_and_one_that_turns_bad_gives_way():
    stream = Stream(1).settled(3)
    oldest, middle, newest = sorted(number for number, one in stream.guard.known.items() if one.good)
    stream.noise[LIVE] = stream.noise[newest] = 2.0
    stream.turn(8)
    assert stream.serving == middle
    stream.noise[middle] = 2.5
    stream.turn(BOUNDS.patience + 4)
    assert stream.serving == oldest
    stream.noise[oldest] = 3.0  # nothing older: it stays until live is better
    stream.turn(4)
    assert stream.serving == oldest
    stream.turn(BOUNDS.return_after + 6)
    assert stream.serving == LIVE
    steps = [step.version for steps in stream.steps for step in steps if step.kind == "serve"]
    assert steps[:3] == [middle, oldest, LIVE]


def test_when_the_world_changes_and_no_version_is_better_live_stays_and_it_is_said_once():
    stream = Stream(2).settled()
    for version in stream.noise:
        stream.noise[version] = 1.2
    stream.turn(40)
    assert set(stream.served) == {LIVE} and stream.kinds().count("stuck") == 1 and stream.kinds().count("alarm") == 1


@pytest.mark.parametrize("turned", [0.15, 0.2, 1.0])
def test_turned_labels_are_not_believed_however_well_live_learns_them(turned):
    stream = Stream(3).settled()
    newest = max(number for number, one in stream.guard.known.items() if one.good)
    stream.turned = turned
    while stream.serving == LIVE and len(stream.served) < 400:
        stream.turn()
    assert stream.serving == newest and stream.guard.trouble == LABELS
    stream.noise[LIVE], stream.shift[LIVE] = 0.5, 4.0 if turned == 1.0 else 1.2  # it has learnt them: it looks better by these labels
    stream.turn(100)
    assert stream.serving == newest
    stream.turned = 0.0
    stream.turn(60)
    assert stream.serving == newest and stream.guard.trouble == MODEL  # labels are right again, and live is not
    stream.noise[LIVE], stream.shift[LIVE] = 0.1, 0.0
    stream.turn(BOUNDS.return_after + 8)
    assert stream.serving == LIVE


def test_what_was_published_after_the_trouble_began_is_never_stepped_to():
    stream = Stream(4).settled()
    good = max(number for number, one in stream.guard.known.items() if one.good)
    stream.turned = 1.0
    stream.publish()  # by a person, who has not seen it yet
    stream.turn(8)
    assert stream.serving == good and stream.guard.known[good + 1].good is False and "doubtful" in stream.kinds(8)


def test_a_person_says_that_what_is_seen_is_normal():
    stream = Stream(5).settled()
    stream.base, stream.shift[LIVE] = -0.5, 0.0
    for version in stream.made:
        stream.shift[version] = -1.5  # they predict what was
    stream.turn(60)
    assert stream.serving != LIVE and stream.guard.trouble == LABELS
    stream.guard.relearn()
    stream.turn(BOUNDS.return_after + 6)
    assert stream.serving == LIVE and stream.guard.trouble == ""


def test_pinned_is_pinned_and_said_all_the_same():
    stream = Stream(6).settled()
    stream.pinned, stream.noise[LIVE] = True, 2.0
    stream.turn(60)
    assert set(stream.served) == {LIVE} and "alarm" in stream.kinds() and "serve" not in stream.kinds()
    stream.pinned = False
    stream.turn(2)
    assert stream.serving != LIVE


def test_too_few_samples_decide_nothing():
    guard = Guard(BOUNDS, {})
    for turn in range(200):
        guard.add(np.ones(5), {LIVE: np.full(5, 0.01)})
        assert guard.tick(30.0 * turn, LIVE, False, {1: 0.0}) == []


def test_a_step_that_was_not_done_is_said_again():
    stream = Stream(7).settled()
    stream.noise[LIVE] = 2.0
    said = 0
    for _ in range(12):
        stream.turn()
        said += "serve" in [step.kind for step in stream.steps[-1]]
        stream.serving = LIVE  # no replica answered
    assert said >= 7


def test_what_it_knew_survives_its_process():
    stream = Stream(8).settled()
    again = Guard(BOUNDS, {})
    again.restore(stream.guard.state(), stream.now_s, stream.made)
    assert (again.log_odds, again.entropy) == (stream.guard.log_odds, stream.guard.entropy)
    assert {n: one.good for n, one in again.known.items()} == {n: one.good for n, one in stream.guard.known.items()}
    stream.guard = again
    stream.noise[LIVE] = 2.0
    stream.turn(10)
    assert stream.serving in [number for number, one in again.known.items() if one.good]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 20), data=st.data())
def test_it_never_flaps_whatever_happens(seed, data):
    """Random trouble of all kinds: one change an interval at most, only to what has proved good, a return only long after the step back, no
    return while labels are not believed, nothing while it is pinned."""
    stream = Stream(seed).settled(2)
    begin = len(stream.served)
    for _ in range(data.draw(st.integers(1, 12))):
        stream.turned = data.draw(st.sampled_from([0.0, 0.0, 0.05, 0.2, 1.0]))
        stream.base = data.draw(st.sampled_from([-2.0, -2.0, -2.3, -1.4]))
        stream.pinned = data.draw(st.sampled_from([False, False, False, True]))
        for version in stream.noise:
            stream.noise[version] = data.draw(st.sampled_from([0.1, 0.3, 0.3, 1.0, 2.5]))
        for _ in range(data.draw(st.integers(1, 12))):
            before = stream.serving
            stream.turn()
            moves = [step for step in stream.steps[-1] if step.kind == "serve"]
            assert len(moves) <= 1 and not (moves and stream.pinned)
            for move in moves:
                assert move.version != before
                assert move.version == LIVE or stream.guard.known[move.version].good
                assert move.version != LIVE or stream.guard.trouble != LABELS
    changes = [i for i in range(max(1, begin), len(stream.served)) if stream.served[i] != stream.served[i - 1]]
    for at in changes:
        if stream.served[at] == LIVE:
            down = max((i for i in changes if i < at), default=0)
            assert at - down >= BOUNDS.return_after


@settings(max_examples=200, deadline=None)
@given(ages=st.lists(st.integers(1, 1_000_000), min_size=0, max_size=30, unique=True), keep=st.integers(2, 8), data=st.data())
def test_what_is_kept_is_few_and_reaches_far_back(ages, keep, data):
    created = {number: 1e6 - age for number, age in enumerate(ages)}
    needed = frozenset(data.draw(st.sets(st.sampled_from(sorted(created)), max_size=2))) if created else frozenset()
    gone = crowded(created, keep, 1e6, needed)
    left = set(created) - set(gone)
    assert len(left) == min(len(created), max(keep, len(left))) and len(left) <= keep + len(needed)
    assert needed <= left
    if created:
        assert {max(created, key=created.get), min(created, key=created.get)} <= left


def test_over_days_the_kept_are_dense_where_they_are_new():
    created = {}
    for number in range(1, 200):
        created[number] = 3600.0 * number
        for one in crowded(created, 6, 3600.0 * number):
            del created[one]
    ages = sorted(199 - at / 3600 for at in created.values())
    assert len(ages) == 6 and ages[0] == 0 and ages[1] <= 3 and ages[-1] == 198 and ages[3] < 60


def test_window_figures_name_live():
    windows = Windows(1, 1, 1)
    windows.add(np.array([0.0, 1.0]), {0: np.array([0.5, 0.5]), 2: np.array([0.1, 0.9])})
    window = windows.turn()
    assert isinstance(window, Window) and set(window.figures()) == {
        "samples", "base_rate", "logloss.live", "entropy.live", "calibration.live", "logloss.2", "entropy.2", "calibration.2"}
