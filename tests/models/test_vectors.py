import numpy as np
import pytest

from headrace.models.catalog import MODELS
from headrace.models.fields import Fields, fields_of
from headrace.models.vectors import item_vectors, user_vectors

SIDE = np.array([0, 1, 1, 2, 2, 2, 0], np.uint8)


@pytest.mark.parametrize("name", MODELS)
def test_inner_products_rank_items_as_the_score_does(name):
    rng = np.random.default_rng(1)
    fields = fields_of(["bias", "user_id", "user.0", "item_id", "item.0", "item.1", "context.0"], SIDE)
    model, items = MODELS[name](fields), 40
    rows = rng.normal(size=(60, model.dim(8))).astype(np.float32)
    index = rng.integers(0, 60, (items, len(SIDE))).astype(np.int32)
    index[:, SIDE == 1] = index[0, SIDE == 1]  # one user
    values = rng.uniform(0.5, 1.5, (items, len(SIDE))).astype(np.float32)
    values[:, SIDE == 1] = values[0, SIDE == 1]
    index[:, SIDE == 0], values[:, SIDE == 0] = index[0, SIDE == 0], values[0, SIDE == 0]  # one moment
    user = user_vectors(rows, index[:1], values[:1], fields)
    item = item_vectors(rows, index, values, fields)
    scores = model.predict(rows, index, values)
    assert user.dtype == item.dtype == np.float32 and item.shape == (items, rows.shape[1])
    shift = scores - item @ user[0]
    np.testing.assert_allclose(shift, shift[0], atol=1e-3)  # they differ by the user's own part alone
    assert np.argsort(-scores).tolist() == np.argsort(-(item @ user[0])).tolist()


def test_a_slot_without_a_value_adds_nothing():
    rows = np.ones((1, 3), np.float32)
    index = np.zeros((1, len(SIDE)), np.int32)
    values = np.zeros((1, len(SIDE)), np.float32)
    fields = Fields(SIDE, np.ones(len(SIDE), np.float32))
    assert user_vectors(rows, index, values, fields).tolist() == [[0, 0, 1]]
    assert item_vectors(rows, index, values, fields).tolist() == [[0, 0, 0]]
