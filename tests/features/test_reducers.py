"""One suite for every entry of features.reducers.REDUCERS: each is what its slow twin says, whatever it is given."""

import inspect
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.features import reducer_kernels
from headrace.features.reducers import IDS, REDUCERS, parameters_of, state_of
from headrace.features.set_kernels import freeze_and_fold_groups, merge_rows
from tests.features.reducer_twins import Twin

MINUTE = 60_000.0
NAMES = list(REDUCERS)
PAST, GUARD = 5, 3.5  # words of a row before the state; what stands around it and must stay
DEFAULT = -7.0


def variants(name):
    """What definitions of this reducer may say, odd values too."""
    keys = parameters_of(REDUCERS[name])
    spans = [{}]
    if "half_life" in keys:
        spans += [{"half_life_ms": 3 * MINUTE}]
    if "window" in keys:
        spans += [{"window_ms": 10 * MINUTE, "tiles": 5}, {"window_ms": MINUTE, "tiles": 1}, {"window_ms": 7.0, "tiles": 16}]
    own = [{}] + ([{"n": 1}, {"n": 5}] if "n" in keys else []) + ([{"bits": 6}] if "bits" in keys else [])
    own += [{"prior": 0.25, "weight": 10.0}] if "prior" in keys else []
    own = own if REDUCERS[name].parameters.get("n") is None or REDUCERS[name].parameters["n"].default else own[1:]
    return [{**span, **mine, **ttl} for span in spans for mine in own for ttl in ({}, {"ttl_ms": 4 * MINUTE})]


CASES = [pytest.param(name, given, id=f"{name}-{n}") for name in NAMES for n, given in enumerate(variants(name))]


class Row:
    """One row of one definition, with guards around its state, folded by the kernels that a shard calls."""

    def __init__(self, name, given, tokens_max=1):
        self.state, self.reducer, self.tokens_max = state_of(name, **given), REDUCERS[name], tokens_max
        words = self.state.words
        self.f = np.zeros(PAST + words + 1 + words)
        self.f[[0, 2, 3, 4, PAST + words]] = GUARD
        self.scratch = PAST + words + 1

    def run(self, events, frozen=(), folded=True):
        """Fold (x, y, token, ts); what is read before the events at `frozen`."""
        n, width = len(events), self.state.width
        takes = self.reducer.takes
        x = np.array([[e[0] if takes in ("number", "ratio") or self.reducer.makes == IDS else 1.0] for e in events])
        y = np.array([[e[1] if takes == "ratio" else math.nan] for e in events])
        tokens = np.array([[[e[2] if takes == "token" else 0]] for e in events], np.uint64)
        numbers, ids = np.zeros((n, 1), np.float32), np.zeros((n, max(width, 1)), np.uint64)
        at = np.isin(np.arange(n), list(frozen)).astype(np.uint8)
        freeze_and_fold_groups(*self.views(), np.zeros((n, 1, 1), np.int64), *self.arrays(), self.scratch, x, y, tokens,
                               np.array([e[3] for e in events], np.int64), at, np.full(n, folded, np.uint8), numbers, ids)
        return [[int(one) for one in row if one] for row in ids] if width else numbers[:, 0].tolist()

    def views(self):
        return self.f, self.f.view(np.uint64), self.f.view(np.uint8)

    def arrays(self):
        state, one = self.state, np.zeros(1, np.int64)
        return (one, np.array([PAST]), np.array([state.words]), np.array([state.width]), np.array([state.code]), state.p[None],
                np.array([DEFAULT]), one)

    def read(self, ts):
        return self.run([(0.0, 0.0, 1, ts)], frozen=[0], folded=False)[0]

    def guarded(self):
        words = self.state.words
        return (self.f[[0, 2, 3, 4, PAST + words]] == GUARD).all()


def twin_read(twin, reducer, ts):
    return twin.read(ts, [] if reducer.makes == IDS else DEFAULT)


def same(reducer, name, found, told):
    if reducer.makes == IDS:
        return found == told
    if name == "distinct" and told != DEFAULT:
        return found == pytest.approx(told, rel=0.25, abs=1.0)  # of few ids nearly exact; of many: test_distinct
    return found == pytest.approx(told, rel=1e-5, abs=1e-5)


EVENTS = st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 7.25]), st.sampled_from([0.0, 1.0]), st.integers(1, 15),
                            st.integers(0, int(20 * MINUTE))), max_size=30)


@pytest.mark.parametrize(("name", "given_"), CASES)
@settings(max_examples=12, deadline=None)
@given(EVENTS, st.booleans())
def test_it_is_what_its_twin_says_at_every_event(name, given_, events, in_order):
    events = sorted(events, key=lambda e: e[3]) if in_order else events
    if name == "top_n":  # as many as it holds: beyond that it is an estimate
        events = [(x, y, 1 + token % (4 * given_["n"]), ts) for x, y, token, ts in events]
    row, twin, told, weights = Row(name, given_), Twin(name, **given_), [], []
    if not events:
        return
    for x, y, token, ts in events:
        if name.startswith("lookup"):  # what an event says of its item is known at the event
            twin.fold(x, y, token, ts)
        told.append(twin_read(twin, row.reducer, ts))
        weights.append(twin.weights(max(ts, twin.newest or 0)) if name == "top_n" else {})
        if not name.startswith("lookup"):
            twin.fold(1.0 if row.reducer.takes == "nothing" else x, y, token, ts)
    found = row.run(events, frozen=range(len(events)))
    if name == "top_n":  # ties of halved weights may fall either way by rounding: what is found weighs as much
        for ours, theirs, weight in zip(found, told, weights, strict=True):
            assert [weight[token] for token in ours] == pytest.approx([weight[token] for token in theirs], rel=1e-9)
    else:
        assert all(same(row.reducer, name, *pair) for pair in zip(found, told, strict=True)), (found, told)
    assert row.guarded()


@pytest.mark.parametrize(("name", "given_"), CASES)
@settings(max_examples=12, deadline=None)
@given(EVENTS, EVENTS, st.integers(0, int(30 * MINUTE)))
def test_two_states_merged_are_one_that_took_all_events(name, given_, mine, theirs, ts):
    if "ttl_ms" in given_:
        return  # what has expired depends on what came first: a state is merged while it lives
    first, second, whole = (Row(name, given_) for _ in range(3))
    for row, events in ((first, mine), (second, theirs), (whole, mine + theirs)):
        if events:
            row.run(events)
    both = np.concatenate([first.f, second.f])
    merge_rows(both, both.view(np.uint64), both.view(np.uint8), np.array([0]), np.array([len(first.f)]), np.array([PAST]),
               np.array([first.state.words]), np.array([first.state.code]), first.state.p[None])
    first.f[:] = both[: len(first.f)]
    found, told = first.read(ts), whole.read(ts)
    assert found == told if name in ("last_n", "distinct", "lookup", "lookup_id", "first_time") else \
        len(found) == len(told) if name == "top_n" else found == pytest.approx(told, rel=1e-4, abs=1e-4)
    assert first.guarded()


@pytest.mark.parametrize(("name", "given_"), CASES)
def test_nothing_folded_reads_as_the_default_and_reading_changes_nothing(name, given_):
    row = Row(name, given_)
    assert row.read(MINUTE) == ([] if row.reducer.makes == IDS else DEFAULT)
    row.run([(1.0, 1.0, 9, MINUTE)])
    before = row.f.copy()
    row.read(2 * MINUTE)
    assert (row.f[: row.scratch] == before[: row.scratch]).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_has_outlived_its_ttl_reads_as_the_default_and_begins_anew(name):
    given_ = {**variants(name)[0], "ttl_ms": 1000.0}
    row, fresh, reused = Row(name, given_), Row(name, given_), Row(name, given_)
    row.run([(2.0, 1.0, 3, 5000)])
    assert row.read(6000) != ([] if row.reducer.makes == IDS else DEFAULT)
    assert row.read(6001) == ([] if row.reducer.makes == IDS else DEFAULT)
    reused.run([(2.0, 1.0, 3, 5000), (1.0, 1.0, 4, 9000)])
    fresh.run([(1.0, 1.0, 4, 9000)])
    assert (reused.f == fresh.f).all(), "a state that begins anew is as a new one, every word of it"
    before = reused.f.copy()
    reused.run([(1.0, 1.0, 5, 7999)])
    assert (reused.f[:-1] == before[:-1]).all(), "an event from before the time to live is not folded"


def test_every_code_is_in_the_table_once():
    codes = {state_of(name, **given).code for name in NAMES for given in variants(name)}
    assert codes == set(range(reducer_kernels.LOOKUP_ID + 1))
    assert set(NAMES) == {name for name, kind in vars(Twin).items() if inspect.isfunction(kind)} - {
        "__init__", "fold", "read", "weight", "weights", "total"}


@pytest.mark.parametrize("distinct", [1, 10, 100, 3000, 200_000])
@pytest.mark.parametrize("bits", [6, 8, 11])
def test_distinct_counts_within_its_error_as_datasketches_does(bits, distinct):
    from datasketches import hll_sketch, tgt_hll_type

    rng, apart, peer = np.random.default_rng(bits), [], []
    for _ in range(12):
        row, sketch = Row("distinct", {"bits": bits}), hll_sketch(bits, tgt_hll_type.HLL_8)
        tokens = rng.integers(1, 1 << 63, distinct).tolist()
        row.run([(1.0, 0.0, token, 1) for token in tokens])
        for token in tokens:
            sketch.update(token)
        apart.append(row.read(2) / distinct - 1)
        peer.append(sketch.get_estimate() / distinct - 1)
    error = 1.04 / math.sqrt(1 << bits)
    assert abs(np.mean(apart)) < 3 * error / math.sqrt(12) + 0.02, (np.mean(apart), np.mean(peer))
    assert np.sqrt(np.mean(np.square(apart))) < 1.8 * max(error, float(np.sqrt(np.mean(np.square(peer)))))


def test_top_n_finds_the_heavy_ones_among_many():
    rng = np.random.default_rng(5)
    tokens = np.concatenate([np.repeat([11, 22, 33], [900, 600, 400]), rng.integers(100, 5000, 2000)])
    rng.shuffle(tokens)
    row = Row("top_n", {"n": 3})
    row.run([(1.0, 0.0, int(token), at) for at, token in enumerate(tokens)])
    assert row.read(len(tokens)) == [11, 22, 33]


def test_parts_merged_in_any_order_are_the_same():
    """Rows of several tags are merged as they are read, whatever stands first."""
    parts = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        row = Row("last_n", {"n": 4})
        row.run([(1.0, 0.0, int(rng.integers(1, 20)), int(rng.integers(0, 50))) for _ in range(20)])
        parts.append(row)
    found = set()
    for order in itertools.permutations(parts):
        f = np.concatenate([row.f for row in order] + [np.zeros(parts[0].state.words)])
        size = len(parts[0].f)
        starts = np.array([[[0, size, 2 * size]]], np.int64)
        numbers, ids = np.zeros((1, 1), np.float32), np.zeros((1, 4), np.uint64)
        freeze_and_fold_groups(f, f.view(np.uint64), f.view(np.uint8), starts, *order[0].arrays(), 3 * size, np.full((1, 1), math.nan),
                               np.full((1, 1), math.nan), np.zeros((1, 1, 1), np.uint64), np.array([60]), np.ones(1, np.uint8),
                               np.zeros(1, np.uint8), numbers, ids)
        found.add(tuple(ids[0].tolist()))
    assert len(found) == 1
