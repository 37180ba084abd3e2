"""The role of a training shard: folder, Flight, health, publishing and snapshots around one owner.

With `ps.standbys` a shard has two members: process `index` below the number of shards is the first of its shard, the others are the
standbys. Each serves while it owns the shard, and follows else (ps/member.py).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector

from headrace.config import Config
from headrace.ps.member import Member, Opened, Terms, opened
from headrace.ps.owners import Owners, OwnersLog
from headrace.ps.publish import Publish, Publisher, nothing_to_flush
from headrace.ps.recovery import Store
from headrace.ps.service import MemberFigures, ShardFigures, shard_verbs
from headrace.ps.spec import ModelSpec
from headrace.ps.standby import Place
from headrace.ps.warm import warm_kernels
from headrace.roles.stopping import stop_serving
from headrace.rpc.errors import Unavailable
from headrace.rpc.freshness import Hop
from headrace.rpc.health import Health
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

log = logging.getLogger(__name__)
SWEEP_S = 0.1
PAUSE_S = 0.5
PUBLISHED_S = 2.0  # that a pass may take at the end; what the broker has not acknowledged is sent again at the next start


def now_ms() -> int:
    """Wall clock, milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def end_this_process(why: str) -> None:
    """As `kill` would: the supervisor starts it anew."""
    log.error("this process ends, to start anew: %s", why)
    os.kill(os.getpid(), signal.SIGTERM)


def start(config: Config, index: int, specs: list[ModelSpec], publish: Publish, flush: Callable[[], None] = nothing_to_flush,
          owners_log: OwnersLog | None = None, ended: Callable[[str], Any] = end_this_process) -> Callable[[], None]:
    """Serve shard `index` at config.ps.addresses[index], or from the number of shards on as the standby of one; what it returns stops it.

    `publish(topic, key, record)` and then `flush()` raise when a record is not safe: it is sent again. Returns once the process answers.
    `owners_log` is asked where there are standbys, and `ended(why)` told when this member is to start anew. Raises what ps/recovery.py
    raises, and OSError for a port that is taken.
    """
    warm_kernels(specs)
    ps, shards = config.ps, len(config.ps.addresses)
    shard, standby = index % shards, index >= shards
    folder = config.stack.data_dir / "ps" / (f"{shard}-standby" if standby else str(shard))
    address, port = (ps.standbys[shard], ps.standby_http_ports[shard]) if standby else (ps.addresses[shard], ps.http_ports[shard])

    def store_of() -> Store:
        return Store(folder, specs, shard, shards, ps.rows_max, ps.ring_length, now_ms, ps.log_bytes_max, ps.snapshot_deltas)

    owner, member, durable = Owner(f"ps-{index}"), None, ps.durability == "fsync"
    if ps.standbys and owners_log is not None:
        place = Place(folder.name, str(shard) if standby else f"{shard}-standby", ps.addresses[shard] if standby else ps.standbys[shard])
        owners = Owners(owners_log, f"{shard}/{shards}")
        found = _opened(folder, store_of, place, not standby, owners)
        member = Member(found, place, owner, owners, Terms(ps.acknowledge_s, ps.takeover_s, durable), ended)
        store = found.store
    else:
        store = store_of()
    store.turn, store.shard.staleness.most = owner.call, ps.staleness_max
    registry, hop = CollectorRegistry(), Hop("gradient")
    verbs = shard_verbs(store, hop, durable, member.acknowledged if member is not None else None)
    publisher = Publisher(store.shard, publish, now_ms, flush, owner.call, member.superseded if member is not None else nothing_to_flush)
    _timers(config, owner, store, member)
    for figures in (ShardFigures(store), hop, *([MemberFigures(member)] if member is not None else [])):
        registry.register(_collector(figures))
    ProcessCollector(registry=registry)
    host, _, number = address.rpartition(":")
    server = Server(host, int(number), member.verbs(verbs) if member is not None else verbs, owner)
    owner.start()
    if member is not None:
        member.start()
    health, over = Health(port, partial(_missing, store, member), registry), threading.Event()
    publishing = threading.Thread(target=publisher.keep_publishing, name="publish", daemon=True,
                                  args=(ps.publish_ms / 1000, over, lambda: member is None or member.owns))
    publishing.start()

    def stop() -> None:
        over.set()
        health.close()
        if member is not None:
            member.stop()
        stop_serving(server, owner)
        publishing.join(PUBLISHED_S)
        store.close()

    return stop


def _opened(folder: Path, store_of: Callable[[], Store], place: Place, first: bool, owners: Owners) -> Opened:
    """ps.member.opened, once the owners' log can be reached."""
    while True:
        try:
            return opened(folder, store_of, place, first, owners)
        except Unavailable as error:
            log.warning("who owns shard %s cannot be seen now, again in %g s: %s", owners.shard, PAUSE_S, error)
            time.sleep(PAUSE_S)


def _timers(config: Config, owner: Owner, store: Store, member: Member | None) -> None:
    owner.every(SWEEP_S, lambda: store.shard.sweep() if member is None or member.owns else 0)
    owner.every(SWEEP_S, store.keep_log_short)
    owner.every(config.ps.snapshot_s, store.snapshot_aside)


def _missing(store: Store, member: Member | None) -> str:
    failed = store.shard.log.failed if store.shard.log else "log"
    return failed or (member.missing() if member is not None else "")


def _collector(figures: Any) -> Any:  # prometheus_client asks for its own base class, and needs only collect()
    return figures
