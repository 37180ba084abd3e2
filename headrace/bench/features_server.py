"""A feature shard as the role opens it, of the bench's definitions: in the bench's process, or as one of its own by `python -m
headrace.bench.features_server FOLDER`, which says its port when it answers, and ends with stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from headrace.bench.features_events import feature_set
from headrace.config import Features
from headrace.features.service import FeatureService
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.features.tail import Tail
from headrace.features.warm import compile_kernels
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server


class Served(NamedTuple):
    """A shard, whose turn it is, and where it answers."""

    shard: FeatureShard
    owner: Owner
    address: str


def opened(folder: str | Path, tail: Tail | None = None) -> FeatureShard:
    """A shard in `folder`, by the settings that the role has unless told; with a `tail` replicas may follow it."""
    return FeatureShard(FeatureStore(folder), half_life_s=Features().half_life_s, ring_length=Features().ring_length,
                        feature_set=feature_set(), tail=tail)


@contextmanager
def served(folder: str | Path) -> Iterator[Served]:
    """Until the block ends."""
    compile_kernels(feature_set())
    shard, owner = opened(folder, Tail()), Owner("bench")
    server = Server("127.0.0.1", 0, FeatureService(shard, owner.give_way).verbs(), owner)
    owner.start()
    try:
        yield Served(shard, owner, f"127.0.0.1:{server.port}")
    finally:
        server.shutdown()
        owner.stop()
        shard.close()


def main(folder: str) -> None:
    """Serve until standard input ends."""
    with served(folder) as here:
        print(here.address.rsplit(":", 1)[1], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
