"""Which features a model reads as their defaults, for who asks the feature service nothing else."""

from __future__ import annotations

import logging
import time

from headrace.features.client import FeatureClient
from headrace.rpc.errors import Unavailable

ASK_S, AGAIN_S = 1.0, 5.0  # how long an answer holds, and no answer
CALL_S, PATIENCE_S = 2.0, 5.0
log = logging.getLogger(__name__)


class Masked:
    """What the feature service at `address` says, asked once in ASK_S at most. Before the first answer it is waited for, `patience_s` at
    most, since learning from a feature that serving does not read would part the two. While it is away the last answer holds, or none is
    masked where there never was one: training needs no feature service. One thread calls it."""

    def __init__(self, address: str, patience_s: float = PATIENCE_S) -> None:
        self._address = address
        self._first = FeatureClient(address, deadline_s=patience_s, timeout_s=CALL_S)
        self._later = FeatureClient(address, deadline_s=0.0, timeout_s=CALL_S)
        self._names: tuple[str, ...] | None = None
        self._ask_s = 0.0

    def now(self) -> tuple[str, ...]:
        """Names of features."""
        if self._names is not None and time.monotonic() < self._ask_s:
            return self._names
        client = self._first if self._names is None else self._later
        holds_s = ASK_S
        try:
            client.masks()
            self._names = client.masked
        except Unavailable as error:
            holds_s = AGAIN_S
            if self._names is None:
                log.warning("which features are frozen nobody says at %s: none is taken to be (%s)", self._address, error)
                self._names = ()
        self._ask_s = time.monotonic() + holds_s
        return self._names

    def close(self) -> None:
        self._first.close()
        self._later.close()
