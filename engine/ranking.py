"""Ranking: the candidates' features as they are now, the serving weights, and the model's own predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.engine.upstream import Upstream, Weights
from headrace.features.client import Assembled
from headrace.models.batch import unique_keys
from headrace.models.catalog import Model
from headrace.models.fm import probability
from headrace.models.inputs import Inputs
from headrace.schemas.hashing import feature_key


@dataclass(frozen=True)
class Ranked:
    """m items in the order given: probabilities float32[m], and all that the scores came from: features as they were read, the model's keys
    uint64[m,F] and values float32[m,F] made of them, and index int32[m,F] into weights.rows."""

    items: list[str]
    probabilities: np.ndarray
    assembled: Assembled
    weights: Weights
    index: np.ndarray
    keys: np.ndarray
    values: np.ndarray


class Ranker:
    """Scores with `model` on the rows that `upstream` serves of it; `inputs` say what it makes of features."""

    def __init__(self, upstream: Upstream, model: Model, inputs: Inputs) -> None:
        self._upstream, self.model, self.inputs = upstream, model, inputs

    def score(self, user: str, items: Sequence[str], context: Mapping[str, str], ts_ms: int, scene: str = "") -> Ranked:
        """Scores of the items for the user at event time `ts_ms`; the same features, weights and time give the same scores.

        Raises the errors of rpc/errors.py.
        """
        item_keys = np.array([feature_key("item_id", item) for item in items], np.uint64)
        assembled = self._upstream.assemble(feature_key("user_id", user), item_keys, context, ts_ms, scene)
        keys, values = self.inputs.expand(assembled.keys, assembled.values, assembled.numbers, assembled.masked)
        wanted, index = unique_keys(keys)
        weights = self._upstream.weights(wanted)
        logits = self.model.predict(weights.rows, index, values)
        return Ranked(list(items), probability(logits), assembled, weights, index, keys, values)
