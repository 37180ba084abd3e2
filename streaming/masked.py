"""Which features a model reads as their defaults, for who asks the feature service nothing else."""

from __future__ import annotations

import time

from headrace.features.client import FeatureClient
from headrace.rpc.errors import Unavailable

ASK_S = 1.0  # how long an answer holds
CALL_S, PATIENCE_S = 2.0, 60.0


class Masked:
    """What the feature service at `address` says, asked once in ASK_S at most. While it is away the last answer holds; before there is one
    it is waited for, `patience_s` at most: learning from a feature that serving does not read would part the two. One thread calls it."""

    def __init__(self, address: str, patience_s: float = PATIENCE_S) -> None:
        self._first = FeatureClient(address, deadline_s=patience_s, timeout_s=CALL_S)
        self._later = FeatureClient(address, deadline_s=0.0, timeout_s=CALL_S)
        self._names: tuple[str, ...] | None = None
        self._asked_s = 0.0

    def now(self) -> tuple[str, ...]:
        """Names of features. Raises Unavailable before the first answer, after `patience_s`."""
        if self._names is not None and time.monotonic() < self._asked_s + ASK_S:
            return self._names
        client = self._first if self._names is None else self._later
        try:
            client.masks()
            self._names = client.masked
        except Unavailable:
            if self._names is None:
                raise
        self._asked_s = time.monotonic()
        assert self._names is not None
        return self._names

    def close(self) -> None:
        self._first.close()
        self._later.close()
