"""The role of a training shard: folder, Flight, health, publishing and snapshots around one owner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector

from headrace.config import Config
from headrace.ps.publish import Publish, Publisher, nothing_to_flush
from headrace.ps.recovery import Store
from headrace.ps.service import ShardFigures, shard_verbs
from headrace.ps.spec import ModelSpec
from headrace.ps.warm import warm_kernels
from headrace.roles.stopping import stop_serving
from headrace.rpc.freshness import Hop
from headrace.rpc.health import Health
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

SWEEP_S = 0.1
PUBLISHED_S = 2.0  # that a pass may take at the end; what the broker has not acknowledged is sent again at the next start


def now_ms() -> int:
    """Wall clock, milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def start(config: Config, index: int, specs: list[ModelSpec], publish: Publish,
          flush: Callable[[], None] = nothing_to_flush) -> Callable[[], None]:
    """Serve shard `index` at config.ps.addresses[index]; what it returns stops it.

    `publish(topic, key, record)` and then `flush()` raise when a record is not safe: it is sent again. Returns once the shard answers.
    Raises what ps/recovery.py raises, and OSError for a port that is taken.
    """
    warm_kernels(specs)
    ps = config.ps
    store = Store(config.stack.data_dir / "ps" / str(index), specs, index, len(ps.addresses), ps.rows_max, ps.ring_length, now_ms,
                  ps.log_bytes_max)
    owner = Owner(f"ps-{index}")
    store.turn = owner.call
    publisher, over = Publisher(store.shard, publish, now_ms, flush, owner.call), threading.Event()
    owner.every(SWEEP_S, store.shard.sweep)
    owner.every(SWEEP_S, store.keep_log_short)
    owner.every(ps.snapshot_s, store.snapshot_aside)
    host, _, port = ps.addresses[index].rpartition(":")
    registry = CollectorRegistry()
    registry.register(_collector(ShardFigures(store)))
    ProcessCollector(registry=registry)
    hop = Hop("gradient")
    registry.register(_collector(hop))
    server = Server(host, int(port), shard_verbs(store, hop, ps.durability == "fsync"), owner)
    owner.start()
    publishing = threading.Thread(target=publisher.keep_publishing, args=(ps.publish_ms / 1000, over), name="publish", daemon=True)
    publishing.start()
    health = Health(ps.http_ports[index], lambda: (store.shard.log.failed if store.shard.log else "log"), registry)

    def stop() -> None:
        over.set()
        health.close()
        stop_serving(server, owner)
        publishing.join(PUBLISHED_S)
        store.close()

    return stop


def _collector(figures: Any) -> Any:  # prometheus_client asks for its own base class, and needs only collect()
    return figures
