"""Exposures scored when they are made: with the weights being served then, as an engine would have scored them.

Under `eager` the order in which samples arrive tells their labels (positives come early), so a score made on arrival flatters or ruins any
AUC. Scored here, before anything is known of the label, it travels with the exposure through the join. Replicas that do not answer
must not hold up the features: their exposures stay without a score, are learnt all the same, and are left out of the metrics.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.features.feature_set import BASE, FeatureSet
from headrace.models.batch import unique_keys
from headrace.models.catalog import MODELS
from headrace.models.fm import probability
from headrace.models.inputs import Transform
from headrace.ps.serving import ServingClient
from headrace.rpc.errors import RpcError
from headrace.streaming.model_inputs import inputs_of

CALL_S = 2.0
PATIENCE_S = 0.25  # where another copy may be asked
PAUSE_S = 1.0  # after a failure: replicas that are away cost one call a second, not one a batch


@dataclass(frozen=True)
class Scoring:
    """Where weights are served (host:port of each process), in how many shards, and of which model with which transforms."""

    replicas: tuple[str, ...]
    model: str
    shards: int = 1
    transforms: tuple[Transform, ...] = ()


class Scorer:
    """Asks the replicas of `scoring` about samples of `feature_set`. Used by one thread."""

    def __init__(self, scoring: Scoring, feature_set: FeatureSet = BASE) -> None:
        self.model = scoring.model
        self._serving = ServingClient(scoring.replicas, scoring.shards, CALL_S, PATIENCE_S)
        self._inputs = inputs_of(feature_set, scoring.transforms)
        self._model = MODELS[scoring.model](self._inputs.fields)
        self._paused_until = 0.0
        self.failures = 0

    def score(self, keys: np.ndarray, values: np.ndarray, numbers: np.ndarray,
              masked: Sequence[str] = ()) -> tuple[np.ndarray, int] | None:
        """(probabilities float32[n], sequence of the weights) of samples as they are frozen: keys uint64[n,F], values float32[n,F], numbers
        float32[n,K], `masked` ones as their defaults; None while nobody answers."""
        if not len(keys) or time.monotonic() < self._paused_until:
            return None
        keys, values = self._inputs.expand(keys, values, numbers, masked)
        wanted, index = unique_keys(keys)
        try:
            served = self._serving.pull(self.model, "weights", wanted)
        except RpcError:
            self.failures += 1
            self._paused_until = time.monotonic() + PAUSE_S
            return None
        return probability(self._model.predict(served.values, index, values)), served.sequence

    def close(self) -> None:
        self._serving.close()
