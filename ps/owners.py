"""Who owns a shard: the fold of a log that everybody reads in one order, so that there are never two.

A shard with a standby is served by one of two members. Whoever wants to own it appends a claim under a higher epoch, reads the log up to
it, and owns the shard if the claim is taken: its own shard again, or one whose owner has said that the other member has everything that was
ever acknowledged (`in_sync`). An owner that wants to acknowledge without its standby must first have said that it is not in sync any more,
which fails after a claim. So a push that was acknowledged is with whoever may own the shard next, whatever stops, hangs or comes back, and
no clock is asked: the same rule as Kafka's in-sync replicas, over one partition of Kafka (topic `ps-owners`) instead of a controller.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

Said = dict[str, Any]


class OwnersLog(Protocol):
    """An append-only log with one order for all. Both raise rpc.errors.Unavailable when it cannot be reached."""

    def append(self, record: Said) -> None:
        """Returns when the record has its place."""

    def read(self, start: int) -> tuple[Sequence[Said], int]:
        """Every record from place `start` on, and the place behind the last."""


class Owner(NamedTuple):
    """`member` owns the shard under `epoch`; `in_sync`: the other one has all that was acknowledged. `forced`: by a person's word."""

    epoch: int
    member: str
    in_sync: bool
    forced: bool = False


def follows(state: Owner | None, said: Said) -> Owner | None:
    """The state after a record, None when it is not taken and nothing changes."""
    told = Owner(said["epoch"], said["member"], said["in_sync"], said.get("forced", False))
    if state is None or (told.epoch > state.epoch and (told.forced or told.member == state.member or state.in_sync)):
        return told
    same = told.epoch == state.epoch and told.member == state.member
    return told._replace(forced=False) if same and not told.forced else None


class Owners:
    """The owner of `shard` ("INDEX/SHARDS"), by a log that other shards share. One thread calls it."""

    def __init__(self, log: OwnersLog, shard: str) -> None:
        self._log, self.shard = log, shard
        self._next = 0
        self._state: Owner | None = None
        self._taken: set[str] = set()

    def now(self) -> Owner | None:
        """The owner as of the log's end; None before the first claim. Raises Unavailable."""
        records, self._next = self._log.read(self._next)
        for said in records:
            if said["shard"] == self.shard:
                following = follows(self._state, said)
                if following is not None:
                    self._state = following
                    self._taken.add(said["id"])
        return self._state

    def say(self, owner: Owner) -> bool:
        """Append what `owner` says and read up to it: whether it was taken. Raises Unavailable: then it may have been, or be yet."""
        name = uuid.uuid4().hex
        self._log.append({"shard": self.shard, "id": name, **owner._asdict()})
        self.now()
        return name in self._taken
