"""What a replica of a feature shard answers: reads, and how far it is behind. All else is asked of the shard."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.features.follower import Follower, Replica
from headrace.features.service import FeatureService
from headrace.rpc.errors import Unavailable
from headrace.rpc.server import Verb


class ReplicaService(FeatureService):
    """Over what `follower` has. Raises Unavailable while that is copied: a caller asks another replica, or the shard."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._begin(self._replica, lambda: follower.masked, lambda: None)

    def verbs(self) -> Mapping[str, Verb]:
        return self._each_timed({"assemble": self._assemble, "user": self._user, "totals": self._totals, "stats": self._stats})

    def _count(self, name: str) -> float:
        replica = self._follower.replica
        return 0 if replica is None else replica.counts.get(name, 0)

    def _replica(self) -> Replica:
        replica = self._follower.replica
        if replica is None:
            raise Unavailable("the rows of the feature shard are being copied")
        return replica
