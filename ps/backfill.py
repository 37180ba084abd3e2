"""Backfill: every shard is sent what it lacks, and only that; its ring says what that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.ps.client import Compute, ParameterClient, PushResult
from headrace.rpc.causes import APPLIED, NEW, OLD, Causes
from headrace.rpc.errors import TooOld
from headrace.rpc.freshness import Newest

ASKED_MAX = 10


@dataclass
class Tally:
    """Causes of one shard: those it had (`there`), those it lacked (`missing`), of these those that were sent (`applied`), and those before
    its ring (`too_old`), of which nobody knows: they are not sent."""

    there: int = 0
    missing: int = 0
    applied: int = 0
    too_old: int = 0


class Backfill:
    """`lacking` says which causes are worth a Trainer's work; `push` takes the place of ParameterClient.push under it."""

    def __init__(self, client: ParameterClient, shards: int) -> None:
        self._client = client
        self.tallies = [Tally() for _ in range(shards)]

    def lacking(self, model: str, effect: str, causes: Causes) -> np.ndarray:
        """bool[n]: which causes some shard has not applied, as far as it can know. Raises what ParameterClient.known raises."""
        status = self._client.known(model, effect, causes)
        for tally, held in zip(self.tallies, status, strict=True):
            tally.there += int((held == APPLIED).sum())
            tally.missing += int((held == NEW).sum())
            tally.too_old += int((held == OLD).sum())
        return np.any([held == NEW for held in status], axis=0)

    def push(self, model: str, effect: str, causes: Causes, compute: Compute, newest: Newest | None = None) -> PushResult:
        """Push each cause to the shards that lack it. A shard that gets it meanwhile from another caller drops it, as from anyone.

        Raises Refused, BadMessage and Unavailable, and TooOld when a ring moves on faster than it can be asked: stop the job first.
        """
        for asked in range(1, ASKED_MAX + 1):
            wanted = [np.nonzero(held == NEW)[0] for held in self._client.known(model, effect, causes)]
            try:
                done = self._client.push(model, effect, causes, compute, newest, wanted=wanted)
                break
            except TooOld:  # between question and push the ring went on
                if asked == ASKED_MAX:
                    raise
        for tally, sent in zip(self.tallies, wanted, strict=True):
            tally.applied += len(sent)
        return done
