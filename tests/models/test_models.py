"""Every entry of the catalog against the definition, its gradients against finite differences."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.models.catalog import MODELS
from headrace.models.fields import Fields, fields_of
from headrace.models.kernels import CONFIRMED, PROVISIONAL, against_odds, importance
from headrace.models.spec import model_spec
from headrace.ps.spec import ModelSpec
from tests import naive_models as naive

sizes = st.tuples(st.integers(1, 5), st.integers(0, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))


def problem(kind, sizes, apart=False):
    """A model and what it computes on; `apart`: no sample names a row twice."""
    u, n, width, factors, seed = sizes
    width = min(width, u) if apart else width
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(u, kind.dim(factors))).astype(np.float32)
    index = rng.integers(0, u, (n, width)).astype(np.int32)
    if apart:
        index = np.array([rng.permutation(u)[:width] for _ in range(n)], np.int32).reshape(n, width)
    fields = Fields(rng.integers(0, 3, width).astype(np.uint8), rng.choice([1.0, 0.5, 4.0], width).astype(np.float32))
    values = (rng.normal(size=(n, width)) * (rng.random((n, width)) < 0.8)).astype(np.float32)
    label = (rng.random(n) < 0.5).astype(np.float32)
    weight = rng.uniform(0, 2, n).astype(np.float32)
    for array in (rows, index, values, label, weight):
        array.setflags(write=False)  # as they come from Flight
    return kind(fields), rows, index, values, label, weight


@pytest.mark.parametrize("name", MODELS)
@given(sizes)
@settings(deadline=None, max_examples=40)
def test_logits_are_the_definition(name, sizes):
    model, rows, index, values, _, _ = problem(MODELS[name], sizes)
    np.testing.assert_allclose(model.predict(rows, index, values), naive.fm_logit(rows, index, values, *model.fields), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@given(sizes, st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=40)
def test_gradients_are_the_slope_of_the_objective(name, sizes, l2):
    model, rows, index, values, label, weight = problem(MODELS[name], sizes)
    logits, grads, squares = model.learn(rows, np.zeros(len(rows), np.int64), index, values, label, weight, l2, 0.0)
    regular = slice(1, None) if rows.shape[1] > 1 else slice(0, 1)
    expected = naive.numeric_gradient(lambda at: naive.objective(at, index, values, label, weight, l2, regular, *model.fields), rows)
    np.testing.assert_allclose(grads, expected, rtol=2e-3, atol=2e-3)
    assert (squares >= 0).all() and ((squares > 0) | (np.abs(grads) < 1e-18)).all()  # whose squares are 0 in float32
    np.testing.assert_array_equal(logits, model.predict(rows, index, values))


@pytest.mark.parametrize("name", MODELS)
@given(sizes, st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=30)
def test_samples_are_learnt_in_turn(name, sizes, l2):
    """As the slow twin does; so a sample's prediction knows those before it, and neither itself nor those after it."""
    model, rows, index, values, label, weight = problem(MODELS[name], sizes, apart=True)
    seen = np.random.default_rng(sizes[-1]).integers(0, 50, len(rows))
    logits, grads, squares = model.learn(rows, seen, index, values, label, weight, l2, 0.05)
    regular = slice(1, None) if rows.shape[1] > 1 else slice(0, 1)
    expected = naive.learn_in_turn(rows, seen, index, values, label, weight, l2, regular, *model.fields, 0.05)
    np.testing.assert_allclose(logits, expected[0], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(grads, expected[1], rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(squares, expected[2], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", MODELS)
@given(sizes, st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=30)
def test_samples_of_two_stages_are_learnt_in_turn(name, sizes, l2):
    """As the slow twin does; a negative that was learnt before is predicted and moves nothing."""
    model, rows, index, values, label, weight = problem(MODELS[name], sizes, apart=True)
    random = np.random.default_rng(sizes[-1])
    seen, stage = random.integers(0, 50, len(rows)), random.integers(0, 3, len(index)).astype(np.uint8)
    label = np.where(stage == PROVISIONAL, 0, label).astype(np.float32)
    logits, grads, squares = model.learn(rows, seen, index, values, label, weight, l2, 0.05, stage)
    regular = slice(1, None) if rows.shape[1] > 1 else slice(0, 1)
    expected = naive.learn_in_turn(rows, seen, index, values, label, weight, l2, regular, *model.fields, 0.05, stage)
    np.testing.assert_allclose(logits, expected[0], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(grads, expected[1], rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(squares, expected[2], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", MODELS)
@given(sizes, st.sampled_from([0.02, 0.3]))
@settings(deadline=None, max_examples=30)
def test_where_a_share_of_the_negatives_is_learnt_the_log_odds_are_raised(name, sizes, kept):
    """As the slow twin does, which raises them; what is left out moves nothing, for samples behind it either."""
    model, rows, index, values, label, weight = problem(MODELS[name], sizes, apart=True)
    random = np.random.default_rng(sizes[-1])
    seen, weight = random.integers(0, 50, len(rows)), np.where(random.random(len(index)) < 0.5, 0, weight).astype(np.float32)
    logits, grads, squares = model.learn(rows, seen, index, values, label, weight, 0.3, 0.05, None, kept)
    regular = slice(1, None) if rows.shape[1] > 1 else slice(0, 1)
    expected = naive.learn_in_turn(rows, seen, index, values, label, weight, 0.3, regular, *model.fields, 0.05, kept=kept)
    np.testing.assert_allclose(logits, expected[0], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(grads, expected[1], rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(squares, expected[2], rtol=1e-2, atol=1e-2)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-3, 1.0))
def test_a_share_of_the_negatives_has_no_gradient_where_the_probability_is_right(p, kept):
    """Of all exposures 1 - p are negatives, and `kept` of these are learnt: a model that says p stays."""
    negative, positive = against_odds(p, 0.0, kept) * p, against_odds(p, 1.0, kept) * (p - 1)
    assert kept * (1 - p) * negative + p * positive == pytest.approx(0.0, abs=1e-12)
    assert 0 < against_odds(p, 1.0, kept) <= 1 + 1e-9 and 1 - 1e-9 <= against_odds(p, 0.0, kept) <= 1 / kept + 1e-6


@given(st.floats(0.0, 1.0))
def test_two_stages_have_no_gradient_where_the_probability_is_right(p):
    """Every exposure as a negative, and of these p once more as positives: a model that says p stays."""
    negative, positive = importance(p, 0.0, PROVISIONAL) * p, importance(p, 1.0, CONFIRMED) * (p - 1)
    assert negative + p * positive == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", MODELS)
@given(sizes)
@settings(deadline=None, max_examples=30)
def test_contributions_add_up_to_the_logit(name, sizes):
    model, rows, index, values, _, _ = problem(MODELS[name], sizes)
    linear, pairs = model.contributions(rows, index, values)
    np.testing.assert_allclose((linear + pairs).sum(axis=1), model.predict(rows, index, values), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_index_is_seen_at_the_door(name):
    rows, index, values = np.zeros((2, MODELS[name].dim(3)), np.float32), np.array([[0, 2]], np.int32), np.ones((1, 2), np.float32)
    model = MODELS[name](fields_of(["user_id", "item_id"], np.array([1, 2])))
    with pytest.raises(AssertionError, match="outside"):
        model.predict(rows, index, values)
    with pytest.raises(AssertionError, match="another feature set"):
        model.predict(rows, index[:, :1], values[:, :1])


@pytest.mark.parametrize("name", MODELS)
def test_spec_has_the_three_tables(name):
    spec = model_spec(name, 3, 8, "adagrad", 0.1, 0.01)
    assert (spec["model"], spec["version"]) == (name, 3)
    assert ModelSpec.from_json(json.dumps(spec)).scope == f"{name}@3"
    assert [(t["name"], t["dtype"], t["dim"], t["served"]) for t in spec["tables"]] == [
        ("weights", "float32", MODELS[name].dim(8), True), ("counts", "int64", 1, False), ("metrics", "int64", 1, False)]
