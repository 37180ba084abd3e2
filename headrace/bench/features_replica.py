"""A replica of a bench's feature shard: in the bench's process, or as one of its own by `python -m headrace.bench.features_replica FOLDER
ADDRESS`, which says its port once it follows the shard at ADDRESS, and ends with stdin."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from headrace.bench.features_events import feature_set
from headrace.config import Config
from headrace.features.follower import Follower, Replica
from headrace.features.replica_service import ReplicaService
from headrace.features.warm import compile_kernels
from headrace.roles.features import settings
from headrace.roles.features_replica import CALL_S, Following
from headrace.rpc.client import Client
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server


class Near(NamedTuple):
    """What follows, and whose turn it is."""

    follower: Follower
    owner: Owner

    @property
    def replica(self) -> Replica:
        assert self.follower.replica is not None
        return self.follower.replica


@contextmanager
def following(folder: str | Path, address: str) -> Iterator[Near]:
    """A replica of the shard at `address` that has all its rows, until the block ends."""
    compile_kernels(feature_set(), follows=True)
    client, owner = Client(address, CALL_S), Owner("bench-replica")
    follower = Follower(Path(folder), client.call, feature_set(), lambda store: Replica(store, **settings(Config()),
                                                                                       feature_set=feature_set()))
    owner.start()
    run = Following(follower, owner)
    try:
        while run.missing():
            time.sleep(0.01)
        yield Near(follower, owner)
    finally:
        run.stop()
        owner.stop()
        client.close()
        if follower.replica is not None:
            follower.replica.close()


def main(folder: str, address: str) -> None:
    """Serve until standard input ends."""
    with following(folder, address) as near:
        server = Server("127.0.0.1", 0, ReplicaService(near.follower).verbs(), near.owner)
        print(server.port, flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:3])
