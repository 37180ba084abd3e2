"""What the engine asks of the services below it, by the verbs of docs/architecture.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from headrace.features.client import Assembled, FeatureClient
from headrace.features.events import EventBatch
from headrace.features.inputs import moment_of
from headrace.ps.serving import Served
from headrace.rpc.freshness import Newest


class Serving(Protocol):
    """ps.serving.ServingClient."""

    def pull(self, model: str, table: str, keys: np.ndarray, deadline_s: float) -> Served: ...

    def reach(self) -> None: ...


class Weights(NamedTuple):
    """Serving rows float32[u,dim], the sequence they are at, how old the newest fold is (milliseconds, -1: none yet), the newest cause
    that they have seen, and the published version that they are of; 0: live."""

    rows: np.ndarray
    sequence: int
    age_ms: int
    newest: Newest | None = None
    version: int = 0


class Upstream:
    """Reads of the feature service and of serving rows; replicas are tried again for `retry_s` seconds, the features as their client is set
    to, then Unavailable is raised."""

    def __init__(self, features: FeatureClient, serving: Serving, model: str, retry_s: float = 0.5) -> None:
        self.features, self.model = features, model
        self._serving, self._retry_s = serving, retry_s

    def read(self, user: int) -> set[int]:
        """Row keys of the items that the user with this row key has seen of late."""
        return set(self.features.user(user).recent.tolist()) - {0}

    def assemble(self, user: int, items: np.ndarray, context: Mapping[str, str], ts_ms: int, scene: str = "") -> Assembled:
        """Features of the user with each of items uint64[m], under the context fields in `scene`, at event time `ts_ms`."""
        m = len(items)
        slots = np.tile(context_keys(context), (m, 1))
        moment = np.tile(moment_of(self.features.set, scene, context), (m, 1))
        return self.features.assemble(np.full(m, user, np.uint64), items, slots, np.full(m, ts_ms, np.int64), moment)

    def weights(self, keys: np.ndarray) -> Weights:
        """The serving rows of distinct keys uint64[u]."""
        served = self._serving.pull(self.model, "weights", keys, self._retry_s)
        return Weights(served.values, served.sequence, served.age_ms, served.newest, served.version)

    def reach(self) -> None:
        """Return when both answer. Raises Unavailable."""
        self.features.stats()
        self._serving.reach()


def context_keys(context: Mapping[str, str]) -> np.ndarray:
    """uint64[4] of context fields, by the code that reads them from an interaction: what is served cannot differ from what is learnt."""
    record = {"event_id": "", "user_id": "", "item_id": "", "action": "impression", "value": 1.0, "ts_ms": 0, "context": dict(context)}
    return EventBatch([record]).columns["context"][0]
