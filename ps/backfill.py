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
    """Causes of one shard: `missing` when it was asked, `there` already, `too_old` to know (they are not pushed)."""

    missing: int = 0
    there: int = 0
    too_old: int = 0


class Backfill:
    """`push` takes the place of ParameterClient.push under a Trainer; `tallies` has one Tally a shard."""

    def __init__(self, client: ParameterClient) -> None:
        self._client = client
        self.tallies: list[Tally] = []

    def push(self, model: str, effect: str, causes: Causes, compute: Compute, newest: Newest | None = None) -> PushResult:
        """Push each cause to the shards that lack it. A shard that gets it meanwhile from another caller drops it, as from anyone.

        Raises Refused, BadMessage and Unavailable, and TooOld when a ring moves on faster than it can be asked: stop the job first.
        """
        for asked in range(1, ASKED_MAX + 1):
            status = self._client.known(model, effect, causes)
            try:
                done = self._client.push(model, effect, causes, compute, newest, wanted=[np.nonzero(held == NEW)[0] for held in status])
                break
            except TooOld:  # between question and push the ring went on
                if asked == ASKED_MAX:
                    raise
        self.tallies = self.tallies or [Tally() for _ in status]
        for tally, held in zip(self.tallies, status, strict=True):
            tally.missing += int((held == NEW).sum())
            tally.there += int((held == APPLIED).sum())
            tally.too_old += int((held == OLD).sum())
        return done
