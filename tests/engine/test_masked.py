"""A feature that is frozen to its default is ranked by that, and written to the log as it was read."""

from __future__ import annotations

import numpy as np

from headrace.engine.ranking import Ranker
from headrace.engine.upstream import Weights
from headrace.features.client import Assembled
from headrace.features.layout import EMPTY_KEYS, SLOTS, F, K
from headrace.models.catalog import MODELS
from headrace.streaming.model_inputs import inputs_of

LIFT = SLOTS.index("user_lift")


class Upstream:
    """Features of two items, `masked` as the feature service says; each key's weight is a tenth."""

    def __init__(self, masked):
        self.masked = masked

    def assemble(self, user, items, context, ts_ms, scene=""):
        keys = np.tile(np.arange(100, 100 + F, dtype=np.uint64), (len(items), 1))
        return Assembled(keys, np.ones((len(items), F), np.float32), np.zeros((len(items), K), np.float32), 7, masked=self.masked)

    def weights(self, keys):
        rows = np.zeros((len(keys), 9), np.float32)
        rows[:, 0] = 0.1
        return Weights(rows, 1, 0)


def test_what_is_frozen_is_ranked_as_its_default_and_kept_as_it_was_read():
    inputs, ranked = inputs_of(), {}
    for masked in ((), ("user_lift",)):
        ranked[masked] = Ranker(Upstream(masked), MODELS["fm"](inputs.fields), inputs).score("u", ["a", "b"], {}, 0)
    plain, frozen = ranked[()], ranked["user_lift",]
    assert (frozen.keys[:, LIFT] == EMPTY_KEYS[LIFT]).all() and not frozen.values[:, LIFT].any() and (plain.values[:, LIFT] == 1).all()
    assert np.array_equal(frozen.assembled.keys, plain.assembled.keys) and np.array_equal(frozen.assembled.values, plain.assembled.values)
    logits = [float(np.log(one.probabilities[0] / (1 - one.probabilities[0]))) for one in (plain, frozen)]
    assert logits[0] > logits[1] > 0
