"""Replicas of a feature shard as a caller sees them: asked in turn, and one that does not answer is left alone for a while."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

from headrace.rpc.client import ELSEWHERE_S, Client
from headrace.rpc.errors import Unavailable
from headrace.rpc.message import Arrays, Header

AWAY_S = 2.0  # before one that did not answer is asked again


class Readers:
    """Of `addresses`. Safe between threads."""

    def __init__(self, addresses: Sequence[str], timeout_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._clients = [Client(address, min(timeout_s, ELSEWHERE_S)) for address in addresses]
        self._away_s = [0.0] * len(self._clients)  # until when it is not asked
        self._turn, self._now = itertools.count(), now

    def call(self, verb: str, header: Header, arrays: Arrays) -> tuple[Header, Arrays] | None:
        """The answer of one that is there; None when none is. Raises what the one that answers refuses with."""
        first = next(self._turn) if self._clients else 0
        for step in range(len(self._clients)):
            place = (first + step) % len(self._clients)
            if self._now() < self._away_s[place]:
                continue
            try:
                return self._clients[place].call(verb, header, arrays)
            except Unavailable:
                self._away_s[place] = self._now() + AWAY_S
        return None

    def close(self) -> None:
        for client in self._clients:
            client.close()
