"""The watch role: River as a peer on a share of the live stream, its detectors on ours, all of it at /metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector

from headrace.config import Config
from headrace.features.layout import SIDE, SLOTS, F
from headrace.models.batch import Batch, unique
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.fm import probability
from headrace.models.progressive import SAMPLED, keys_of, summary
from headrace.ps.client import ParameterClient
from headrace.ps.serving import ServingClient
from headrace.roles.ps import now_ms
from headrace.rpc.errors import RpcError
from headrace.rpc.health import Health
from headrace.watch.figures import Exported
from headrace.watch.river_peer import Drifts, Peer
from headrace.watch.watcher import Records, Watcher

log = logging.getLogger(__name__)
RETRY_S = 5.0
START_S = 60.0
METRICS_S = 0.5  # of a scrape

Read = Callable[[Callable[[Records], None], threading.Event], None]


def start(config: Config, index: int, exposures: Read, samples: Read) -> Callable[[], None]:
    """Watch until what it returns is called; figures at config.watch.http_port.

    `exposures(take, stop)` and `samples(take, stop)` each run on a thread: they hand (append time in ms, decoded record) of `enriched` and
    `samples` from now on to `take` until `stop` is set, and are called again a second after they raise. There is one watch; `index` is 0.
    Raises Unavailable when the parameter server does not come up.
    """
    assert index == 0, "there is one watch"
    model = MODELS[config.model.name](fields_of(SLOTS, SIDE))
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

    drifts = Drifts()
    watcher = Watcher(score, Peer(), drifts, found, width=F, target=config.samples.target, share=config.watch.share,
                      rate_max=config.watch.rate_max, now_ms=now_ms, clock_s=time.monotonic)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Exported(watcher, drifts.found, learnt))  # type: ignore[arg-type]
    stop = threading.Event()
    threads = [threading.Thread(target=_read, args=(name, read, take, stop), name=name, daemon=True)
               for name, read, take in (("exposures", exposures, watcher.expose), ("samples", samples, watcher.settle))]
    for thread in threads:
        thread.start()

    def missing() -> str:
        return ", ".join(f"the reader of {thread.name} has ended" for thread in threads if not thread.is_alive())

    health = Health(config.watch.http_port, missing, registry)

    def close() -> None:
        stop.set()
        for thread in threads:
            thread.join(10)
        health.close()
        serving.close()
        parameters.close()

    return close


def _read(name: str, read: Read, take: Callable[[Records], None], stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            read(take, stop)
            return
        except Exception:
            log.exception("reading %s failed; again in a second", name)
            stop.wait(1.0)
