"""Summaries of a feature's values: PSI as counted by hand, quantiles and ids within the sketches' errors, and a reference kept as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.watch.sketches import BUCKETS, Summary, psi
from tests.naive import psi_of

FEW = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=80)  # KLL keeps so many as they are


def summary(values, least=-np.inf, most=np.inf, blank=0.0):
    made = Summary()
    made.numbers(np.array(values, np.float32), blank, least, most)
    return made


@given(FEW, FEW)
def test_psi_is_what_is_counted_by_hand(before, now):
    first, second = summary(before), summary(now)
    edges = first.edges()
    assert psi(first.counts(edges), second.counts(edges)) == pytest.approx(psi_of(before, now, edges.tolist()), rel=1e-6, abs=1e-9)
    assert psi(first.counts(edges), first.counts(edges)) == pytest.approx(0, abs=1e-12)


@given(st.lists(FEW, min_size=1, max_size=4))
def test_joined_is_as_if_it_had_been_one(parts):
    joined = Summary()
    for part in parts:
        joined.join(summary(part, -50, 50))
    whole = summary([value for part in parts for value in part], -50, 50)
    assert (joined.n, joined.null, joined.default, joined.outside) == (whole.n, whole.null, whole.default, whole.outside)
    assert joined.cardinality == pytest.approx(whole.cardinality, rel=0.02)
    assert joined.quantiles.get_min_value() == whole.quantiles.get_min_value()


def test_what_is_no_number_is_null_and_what_lies_outside_is_counted():
    made = summary([0, 0, np.nan, np.inf, 5, -1, 9], 0, 8)
    assert (made.n, made.null, made.default, made.outside) == (7, 2, 2, 2)


def test_ids_are_counted_by_their_hash_and_how_many_there_are():
    keys = np.random.default_rng(0).integers(1, 1 << 63, 5000, np.int64).view(np.uint64) * np.uint64(2)
    rows, there = keys.reshape(-1, 2), np.ones((2500, 2), bool)
    there[:100] = False
    made = Summary()
    made.ids(rows, there)
    assert (made.n, made.null, made.buckets.sum()) == (2500, 100, 4800)
    assert made.cardinality == pytest.approx(4800, rel=0.07) and len(made.counts(made.edges())) == BUCKETS


def test_a_long_stream_is_within_the_sketch_and_in_bounded_memory():
    rng, made = np.random.default_rng(1), Summary()
    for _ in range(200):
        made.numbers(rng.normal(size=5000).astype(np.float32), 0.0, -np.inf, np.inf)
    assert made.quantiles.get_quantile(0.5) == pytest.approx(0, abs=0.06)
    assert len(json.dumps(made.state())) < 20_000


def test_a_reference_comes_back_from_json():
    made = summary(np.random.default_rng(2).normal(size=4000))
    back = Summary.of(json.loads(json.dumps(made.state())))
    assert np.array_equal(back.edges(), made.edges()) and back.n == made.n
    assert psi(made.counts(made.edges()), back.counts(made.edges())) == 0


@pytest.mark.parametrize("shifted, least, most", [(0.0, 0.0, 0.08), (0.3, 0.05, 0.25), (1.0, 0.5, 2.0)])
def test_psi_of_samples_is_small_without_a_shift_and_grows_with_it(shifted, least, most):
    rng = np.random.default_rng(3)
    before, now = summary(rng.normal(size=5000)), summary(rng.normal(shifted, 1, 1000))
    assert least <= psi(before.counts(before.edges()), now.counts(before.edges())) < most


def test_a_constant_that_moves_either_way_is_far():
    before = summary([1.0] * 1000)
    for moved in (0.5, 2.0):
        assert psi(before.counts(before.edges()), summary([moved] * 1000).counts(before.edges())) > 1
