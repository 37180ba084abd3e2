"""What the engine asks of the services below it, by the verbs of docs/architecture.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np


class Caller(Protocol):
    """rpc.client.Client."""

    def call_until(self, deadline_s: float, verb: str, header: Mapping[str, Any] | None = None,
                   arrays: Mapping[str, np.ndarray] | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]: ...


class Person(NamedTuple):
    """A user as the features know it: recent uint64[r], row keys of the items seen, newest first."""

    found: bool
    recent: np.ndarray


class Assembled(NamedTuple):
    """Model inputs of m candidates: keys uint64[m,F], values float32[m,F], numbers float32[m,K], as of `sequence` of the feature shard."""

    keys: np.ndarray
    values: np.ndarray
    numbers: np.ndarray
    sequence: int


class Weights(NamedTuple):
    """Serving rows float32[u,dim], the sequence they are at, and how old the newest fold is (milliseconds, -1: none yet)."""

    rows: np.ndarray
    sequence: int
    age_ms: int


class Upstream:
    """Reads of the feature service and the serving replica, tried again for `retry_s` seconds while one restarts, then Unavailable."""

    def __init__(self, features: Caller, replica: Caller, feature_set: str, model: str, retry_s: float = 0.5) -> None:
        self.feature_set, self.model = feature_set, model
        self._features, self._replica, self._retry_s = features, replica, retry_s

    def person(self, user: int) -> Person:
        """What is known of the user with this row key."""
        header, arrays = self._features.call_until(self._retry_s, "user", {}, {"user": np.array([user], np.uint64)})
        recent = arrays["recent"].reshape(-1)
        return Person(bool(header["found"]), recent[recent != 0])

    def popular(self, k: int) -> tuple[list[str], np.ndarray]:
        """Ids of the k most popular items, best first, and their scores float32."""
        header, arrays = self._features.call_until(self._retry_s, "popular", {"k": k})
        return header["items"], arrays["score"]

    def assemble(self, user: int, items: np.ndarray, context: np.ndarray, ts_ms: int) -> Assembled:
        """Inputs of the user with each of items uint64[m], under context uint64[4], at event time `ts_ms`."""
        m = len(items)
        header, arrays = self._features.call_until(self._retry_s, "assemble", {"feature_set": self.feature_set}, {
            "user": np.full(m, user, np.uint64), "item": items, "context": np.tile(context.astype(np.uint64), (m, 1)),
            "ts_ms": np.full(m, ts_ms, np.int64)})
        return Assembled(arrays["keys"], arrays["values"], arrays["numbers"], int(header["sequence"]))

    def names(self, keys: np.ndarray) -> list[str | None]:
        """"field=value" behind each of uint64[n], None for one that the features never saw named."""
        return self._features.call_until(self._retry_s, "resolve", {}, {"keys": keys})[0]["names"]

    def weights(self, keys: np.ndarray) -> Weights:
        """The serving rows of distinct keys uint64[u]."""
        header, arrays = self._replica.call_until(self._retry_s, "pull", {"model": self.model, "table": "weights"}, {"keys": keys})
        return Weights(arrays["values"], int(header["sequence"]), int(header["age_ms"]))

    def reach(self) -> None:
        """Return when both answer. Raises Unavailable."""
        self._features.call_until(0.0, "stats")
        self._replica.call_until(0.0, "stats")
