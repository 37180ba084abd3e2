"""The engine role: clients of the services below, the producer of interactions, the HTTP front and the heartbeats."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import uvicorn
from prometheus_client import CollectorRegistry, Counter, ProcessCollector

from headrace.access import check
from headrace.ann.client import AnnClient
from headrace.config import Config, ConfigError
from headrace.engine.app import app
from headrace.engine.clock import Clock
from headrace.engine.console.desk import desk
from headrace.engine.events import Events
from headrace.engine.exposures import Keyed
from headrace.engine.heartbeat import Heartbeats
from headrace.engine.keys import Keys
from headrace.engine.ranking import Ranker
from headrace.engine.recommend import Engine
from headrace.engine.upstream import Upstream
from headrace.feature_set import feature_set_of, model_inputs
from headrace.features.client import FeatureClient
from headrace.kafka import Producer, Undelivered
from headrace.live.sources import sources
from headrace.models.batch import unique_keys
from headrace.models.catalog import MODELS, Model
from headrace.models.fm import probability
from headrace.ps.serving import ServingClient
from headrace.rpc.errors import Unavailable
from headrace.rpc.freshness import Hop
from headrace.schemas.codec import Codec, RegistryUnavailable
from headrace.schemas.registry import RegistryClient

log = logging.getLogger(__name__)
TOPIC = "interactions"
DELIVERY_S = 10.0
CALL_S = 5.0
RETRY_S = 0.5


class _Producer(Protocol):
    def send(self, topic: str, key: bytes | str | None, value: bytes | None,
             on_delivery: Callable[[Any, Any], None] | None = None) -> None: ...

    def poll(self, seconds: float = 0.0) -> None: ...


class Interactions:
    """The topic as a sink of records. Safe between threads."""

    def __init__(self, producer: _Producer, codec: Codec, registry: CollectorRegistry) -> None:
        self._producer, self._codec = producer, codec
        self._lock = threading.Lock()  # one codec, one thread at a time
        self._sent = Counter("headrace_engine_interactions", "Interactions by outcome: sent, failed.", ["outcome"], registry=registry)

    def post(self, records: list[Keyed]) -> None:
        """Queue and return; what the broker does not take is counted and logged."""
        for key, record in records:
            self._queue(key, record, self._count)

    def deliver(self, records: list[Keyed]) -> list[str]:
        """Wait until the broker has each record: "" or why it has not. Raises Unavailable when nothing can be queued."""
        outcomes: list[str | None] = [None] * len(records)
        for i, (key, record) in enumerate(records):
            def delivered(error: Any, message: Any, i: int = i) -> None:
                outcomes[i] = "" if error is None else str(error)
                self._count(error, message)

            self._queue(key, record, delivered)
        until = time.monotonic() + DELIVERY_S
        while any(outcome is None for outcome in outcomes) and time.monotonic() < until:
            self._producer.poll(0.005)
        return [f"no acknowledgement of the broker within {DELIVERY_S:.0f} s; it may still come" if o is None else o for o in outcomes]

    def _queue(self, key: bytes, record: dict[str, Any], done: Callable[[Any, Any], None]) -> None:
        try:
            with self._lock:
                value = self._codec.encode(record)
            self._producer.send(TOPIC, key, value, done)
        except (RegistryUnavailable, Undelivered) as error:
            raise Unavailable(f"interactions cannot be written: {error}") from None

    def _count(self, error: Any, _: Any) -> None:
        self._sent.labels("sent" if error is None else "failed").inc()
        if error is not None:
            log.warning("an interaction was not delivered: %s", error)


def start(config: Config, index: int = 0, **_: object) -> Callable[[], None]:
    """Serve at config.engine.url; what it returns stops it. The clock is kept in DATA_DIR/engine.

    Raises OSError when the port is taken, ConfigError for an address that others reach without keys and TLS, KeysError.
    """
    assert index == 0, "there is one engine process"
    check(config.engine)
    keys = Keys(config.engine.keys_file) if config.engine.keys_file else None
    feature_set, inputs = feature_set_of(config), model_inputs(config)
    model = MODELS[config.model.name](inputs.fields)
    _warm(model, MODELS[config.model.name].dim(config.model.factors), inputs.F)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    features = FeatureClient(config.features.address, deadline_s=RETRY_S, timeout_s=CALL_S, feature_set=feature_set,
                             replicas=config.features.replicas)
    serving = ServingClient(config.replica.addresses, config.replica.shards, CALL_S)
    vectors = AnnClient(config.ann.address, CALL_S, RETRY_S)
    producer = Producer(config.kafka.cluster)
    schemas = RegistryClient(config.registry.access)
    sink = Interactions(producer, Codec(TOPIC, schemas), registry)
    clock = Clock(config.stack.data_dir / "engine" / "clock.json")
    upstream = Upstream(features, serving, model.name, RETRY_S)
    hop: Any = Hop("recommendation", asked=True)
    registry.register(hop)
    engine = Engine(upstream, vectors, Ranker(upstream, model, inputs), clock, sink.post, config.engine.candidates, hop.observe)
    events = Events(clock, sink.deliver, config.engine.event_bytes_max,
                    [one.action for one in config.samples.targets])
    lag_ms = config.engine.heartbeat_lag_ms if config.samples.live else 0
    heartbeats = Heartbeats(clock, config.kafka.partitions, config.engine.heartbeat_ms, lambda key, record: sink.post([(key, record)]),
                            lag_ms)
    shown, end_looks = sources(config, hop)
    page = desk(engine, events, shown)
    application = app(engine, events, registry, requests_max=config.engine.requests_max, keys=keys, desk=page)
    end_serving = _serve(application, config.engine.url, config.engine.tls_cert, config.engine.tls_key)
    heartbeats.start()
    log.info("engine at %s, model %s", config.engine.url, model.name)

    def stop() -> None:
        end_serving()
        page.sampler.stop()
        heartbeats.stop()
        try:
            producer.flush(DELIVERY_S)
        except Undelivered as error:
            log.error("at the end: %s", error)
        end_looks()
        for client in (features, serving, vectors, schemas):
            client.close()

    return stop


def _warm(model: Model, dim: int, slots: int) -> None:
    """Compile the kernels, or read them from Numba's cache, before the first request. Arrays from Flight are read-only: a type."""
    rows, values, keys = np.zeros((1, dim), np.float32), np.zeros((1, slots), np.float32), np.zeros((1, slots), np.uint64)
    for array in (rows, values, keys):
        array.setflags(write=False)
    probability(model.predict(rows, unique_keys(keys)[1], values))


def _serve(application: Any, url: str, cert: Path | None = None, key: Path | None = None) -> Callable[[], None]:
    address = urlsplit(url)
    tls = {"ssl_certfile": str(cert), "ssl_keyfile": str(key)} if cert and key else {}
    if tls:
        _try(tls)
    server = uvicorn.Server(uvicorn.Config(application, host=address.hostname or "127.0.0.1", port=address.port or 80,
                                           log_level="warning", access_log=False, timeout_graceful_shutdown=5, **tls))  # type: ignore[arg-type]
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined, method-assign]  # signals are the process's
    thread = threading.Thread(target=_run, args=(server,), name="engine-http", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise OSError(f"the engine cannot serve at {url}: is the port taken?")
        time.sleep(0.01)

    def end() -> None:
        server.should_exit = True
        thread.join(10)

    return end


def _try(tls: dict[str, str]) -> None:
    """Raises ConfigError when the certificate and its key cannot be used; uvicorn would say it with a traceback."""
    cert, key = tls["ssl_certfile"], tls["ssl_keyfile"]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"engine.tls_cert {cert} and engine.tls_key {key} cannot be used: {error}") from None


def _run(server: uvicorn.Server) -> None:
    try:
        server.run()
    except SystemExit:  # uvicorn exits the process when it cannot bind; `start` says why
        pass
