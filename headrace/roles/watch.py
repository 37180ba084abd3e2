"""The watch role: River as a peer on a share of the live stream, its detectors on ours, the guard of serving, the quality of features;
all at /metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector

from headrace.config import Config
from headrace.feature_set import feature_set_of, model_inputs
from headrace.features.client import FeatureClient
from headrace.models.batch import Batch, unique
from headrace.models.catalog import MODELS
from headrace.models.fm import probability
from headrace.models.progressive import SAMPLED, keys_of, summary
from headrace.ps.client import ParameterClient
from headrace.ps.serving import ServingClient
from headrace.ps.spec import ModelSpec
from headrace.roles.ps import now_ms
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError
from headrace.rpc.health import Health
from headrace.streaming.masked import Masked
from headrace.versions import Versions
from headrace.watch.downgrade import Bounds
from headrace.watch.exposed import Rate, Records, Share
from headrace.watch.figures import Exported
from headrace.watch.keeper import Keeper
from headrace.watch.page_hinkley import PageHinkley
from headrace.watch.shadow import Shadow
from headrace.watch.watcher import Watcher

if TYPE_CHECKING:
    from headrace.watch.warden import Warden

log = logging.getLogger(__name__)
RETRY_S = 5.0
START_S = 60.0
METRICS_S = 0.5  # of a scrape

LOAD_S = 600.0  # of a version that a replica prepares, or a shard's snapshot

Take = Callable[[Records], None]
Read = Callable[[Take, threading.Event], None]


def start(config: Config, index: int, exposures: Read, samples: Read, specs: list[ModelSpec] | None = None,
          events: Read | None = None) -> Callable[[], None]:
    """Watch until what it returns is called; figures at config.watch.http_port. With `specs` and versions.guard the guard is on too,
    with `events` and quality.enabled the quality of features; without River there are only these.

    `exposures(take, stop)`, `samples(take, stop)` and `events(take, stop)` each run on a thread: they hand (append time in ms, decoded
    record) of `enriched`, `samples` and `interactions` from now on to `take` until `stop` is set, and are called again a second after they
    raise. There is one watch; `index` is 0.
    Raises Unavailable when the parameter server does not come up, ModuleNotFoundError without River and without the guard.
    """
    assert index == 0, "there is one watch"
    registry, stop = CollectorRegistry(), threading.Event()
    ProcessCollector(registry=registry)
    readers: list[tuple[Take, Take]] = []
    threads: list[threading.Thread] = []
    ends: list[Callable[[], None]] = []
    guarded = config.versions.guard and specs is not None
    masked = Masked(config.features.address, 0.0)
    ends.append(masked.close)
    detectors: dict[str, Callable[[float], bool]] = {"page_hinkley": PageHinkley().update}
    try:
        from headrace.watch import river_peer

        detectors = river_peer.loss_detectors()
        watcher, end = _peer(config, river_peer, registry, masked.now)
        readers.append((watcher.expose, watcher.settle))
        ends.append(end)
    except ModuleNotFoundError as error:
        if not guarded:
            raise
        log.warning("%s is not installed: no peer is watched beside ours", error.name)
    if guarded and specs is not None:
        keeper, shadow, end = _guard(config, specs, detectors, registry, masked.now)
        readers.append((shadow.expose, shadow.settle))
        ends.append(end)
        threads.append(threading.Thread(target=keeper.keep_ticking, args=(stop,), name="guard", daemon=True))
    follows = [("exposures", exposures, [expose for expose, _ in readers]), ("samples", samples, [settle for _, settle in readers])]
    if config.quality.enabled and events is not None and (watched := _warden(config, registry)) is not None:
        warden, end = watched
        follows[0][2].append(warden.expose)
        follows.append(("events", events, [warden.happen]))
        ends.append(end)
        threads.append(threading.Thread(target=warden.keep_turning, args=(stop,), name="quality", daemon=True))
    for name, read, takes in follows:
        threads.append(threading.Thread(target=_read, args=(name, read, takes, stop), name=name, daemon=True))
    for thread in threads:
        thread.start()

    def missing() -> str:
        return ", ".join(f"the thread {thread.name} has ended" for thread in threads if not thread.is_alive())

    health = Health(config.watch.http_port, missing, registry)

    def close() -> None:
        stop.set()
        for thread in threads:
            thread.join(10)
        health.close()
        for end in ends:
            end()

    return close


def _peer(config: Config, river_peer: Any, registry: CollectorRegistry,
          frozen: Callable[[], tuple[str, ...]]) -> tuple[Watcher, Callable[[], None]]:
    """River beside ours, and what closes its connections."""
    inputs = model_inputs(config)
    model = MODELS[config.model.name](inputs.fields)
    serving = ServingClient(config.replica.addresses, config.replica.shards)
    parameters = ParameterClient(config.ps.reachable, START_S)
    before = parameters.pull(config.model.name, "metrics", keys_of(SAMPLED))[0][:, 0]  # of what was learnt before this peer began
    parameters.close()
    parameters = ParameterClient(config.ps.reachable, METRICS_S)

    def score(batch: Batch) -> np.ndarray:
        keys, places = unique(batch)
        rows = serving.pull(config.model.name, "weights", keys, RETRY_S).values
        return probability(model.predict(rows, places, batch.values))

    def found(kind: str, of: str) -> None:
        log.warning("drift: %s says that the %s of %s has changed, after %d samples", kind, of, config.model.name,
                    watcher.outcomes["scored"])

    def learnt() -> dict[str, float | None] | None:
        try:
            return summary(parameters.pull(config.model.name, "metrics", keys_of(SAMPLED))[0][:, 0] - before)
        except RpcError as error:
            log.warning("training's scores cannot be read: %s", error)
            return None

    drifts = river_peer.Drifts()
    watcher = Watcher(score, river_peer.Peer(), drifts, found, inputs=inputs, target=config.target_of(), share=config.watch.share,
                      rate_max=config.watch.rate_max, now_ms=now_ms, clock_s=time.monotonic, masked=frozen)
    registry.register(Exported(watcher, drifts.found, learnt))  # type: ignore[arg-type]

    def end() -> None:
        serving.close()
        parameters.close()

    return watcher, end


def _guard(config: Config, specs: list[ModelSpec], detectors: dict[str, Callable[[float], bool]],
           registry: CollectorRegistry, frozen: Callable[[], tuple[str, ...]]) -> tuple[Keeper, Shadow, Callable[[], None]]:
    """The guard of the served model, and what closes its connections."""
    spec = next(one for one in specs if one.model == config.model.name)
    scores = ServingClient(config.replica.addresses, config.replica.shards)
    told = [Client(address, LOAD_S) for address in config.replica.addresses]
    shards = [Client(address, LOAD_S) for address in config.ps.reachable]

    def pull(keys: np.ndarray, version: int | None) -> tuple[int, np.ndarray]:
        served = scores.pull(spec.model, "weights", keys, RETRY_S, version)
        return served.version, served.values

    settings = config.versions.model_dump(exclude={"guard"})
    inputs = model_inputs(config)
    keeper = Keeper(Versions(config.stack.data_dir / "versions", spec, told, now_ms), spec, MODELS[spec.model](inputs.fields),
                    pull, shards, Bounds(**settings), detectors, config.ps.rows_max, now_ms, inputs)
    shadow = Shadow(keeper.score, keeper.take, inputs=inputs, target=config.target_of(), share=config.watch.share,
                    rate_max=config.watch.rate_max, now_ms=now_ms, clock_s=time.monotonic, masked=frozen)
    registry.register(keeper)  # type: ignore[arg-type]

    def end() -> None:
        scores.close()
        for client in (*told, *shards):
            client.close()

    return keeper, shadow, end


def _warden(config: Config, registry: CollectorRegistry) -> tuple[Warden, Callable[[], None]] | None:
    """The quality of features, and what closes its connection; None without datasketches."""
    try:
        from headrace.watch.feature_quality import FeatureQuality
        from headrace.watch.warden import Warden
    except ModuleNotFoundError as error:
        log.warning("%s is not installed: features are not watched; pip install 'headrace[watch]'", error.name)
        return None
    feature_set = feature_set_of(config)
    client = FeatureClient(config.features.address, deadline_s=0.0, timeout_s=RETRY_S)
    watch = config.watch
    warden = Warden(feature_set, FeatureQuality(feature_set, config.quality), client, Share(watch.share, watch.rate_max, time.monotonic),
                    Rate(watch.rate_max, time.monotonic), config.stack.data_dir / "quality", now_ms)
    registry.register(warden)  # type: ignore[arg-type]
    return warden, client.close


def _read(name: str, read: Read, takes: list[Take], stop: threading.Event) -> None:
    def take(records: Records) -> None:
        for one in takes:
            one(records)

    while not stop.is_set():
        try:
            read(take, stop)
            return
        except Exception:
            log.exception("reading %s failed; again in a second", name)
            stop.wait(1.0)
