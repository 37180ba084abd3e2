"""The role of a serving replica: a fold of weights.MODEL behind Flight, with gaps closed from the training shards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector

from headrace.config import Config
from headrace.ps.replica import Replica
from headrace.ps.resync import keep_closed
from headrace.ps.service import ReplicaFigures
from headrace.ps.spec import ModelSpec
from headrace.ps.versioned import Versioned, VersionFigures
from headrace.ps.warm import warm_kernels
from headrace.roles.ps import now_ms
from headrace.roles.stopping import stop_serving
from headrace.rpc.freshness import Hop
from headrace.rpc.health import Health
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

log = logging.getLogger(__name__)
Records = Sequence[dict[str, Any]]
Consume = Callable[["Feed", threading.Event], None]
RECORDS_A_HOLD = 16


class Feed:
    """The `fold` that `consume` gets: called with a decoded weight record, or with a list of them, which is what to prefer."""

    def __init__(self, replica: Replica, owner: Owner) -> None:
        self._replica = replica
        self._owner = owner

    def __call__(self, records: dict[str, Any] | Records) -> int:
        return self.fold_many([records] if isinstance(records, dict) else records)

    def fold_many(self, records: Records) -> int:
        """Fold in order, 16 a turn at the owner: pulls come in between. How many were taken. Raises BadMessage, Refused."""
        parts = [records[at : at + RECORDS_A_HOLD] for at in range(0, len(records), RECORDS_A_HOLD)]
        return sum(self._owner.call(partial(self._replica.fold_many, part)) for part in parts)


def start(config: Config, index: int, specs: list[ModelSpec], consume: Consume) -> Callable[[], None]:
    """Serve serving shard index % config.replica.shards at config.replica.addresses[index]; what it returns stops it.

    `consume(fold, stop)` runs on a thread: it feeds decoded weight records to `fold` (see Feed) until `stop` is set, and is called again
    a second after it raises. Ready once it runs, all has been fetched from the training shards and what
    was chosen is loaded; it answers before.
    """
    warm_kernels(specs)
    owner, stopping = Owner("replica"), threading.Event()
    hop = Hop("serving_row")
    shards = config.replica.shards
    replica = Replica(specs, len(config.ps.addresses), config.ps.rows_max, now_ms, hop.observe, (index % shards, shards))
    versioned = Versioned(replica, specs, config.stack.data_dir / "versions", config.ps.rows_max, now_ms)
    host, _, port = config.replica.addresses[index].rpartition(":")
    registry = CollectorRegistry()
    figures: tuple[Any, ...] = (ReplicaFigures(replica), VersionFigures(versioned), hop)
    for one in figures:
        registry.register(one)
    ProcessCollector(registry=registry)
    server = Server(host, int(port), versioned.verbs(), owner)
    owner.start()
    feeding = threading.Thread(target=_feed, args=(consume, Feed(replica, owner), stopping), name="consume", daemon=True)
    closing = threading.Thread(target=keep_closed, args=(replica, owner, config.ps.reachable, stopping), name="resync", daemon=True)
    following = threading.Thread(target=versioned.keep_following, args=(owner, stopping), name="versions", daemon=True)
    for thread in (feeding, closing, following):
        thread.start()

    def missing() -> str:
        if not feeding.is_alive():
            return "the consumer of weights has ended"
        if versioned.trouble():
            return versioned.trouble()
        return "" if replica.whole else f"{len(replica.gaps) + len(replica.closing)} tables to fetch"

    health = Health(config.replica.http_ports[index], missing, registry)

    def stop() -> None:
        stopping.set()
        health.close()
        feeding.join(5)
        closing.join(5)
        following.join(5)
        stop_serving(server, owner)

    return stop


def _feed(consume: Consume, fold: Feed, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            consume(fold, stop)
            return
        except Exception:
            log.exception("consuming weights failed; again in a second")
            stop.wait(1.0)
