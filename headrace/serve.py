"""One role as a process: builds what its room asks for as plain callables, starts it, stops it on SIGTERM."""

from __future__ import annotations

import importlib
import inspect
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from headrace.config import Config, Model

log = logging.getLogger(__name__)
ROLES = ("registry", "features", "features_replica", "ps", "replica", "ann", "engine", "watch", "lake")
RECORDS_MAX, WAIT_S = 512, 0.005  # of one batch that a reader folds

EXTRAS = {"watch": "watch"}  # role -> extra, where it is not serve

Fold = Callable[[list[dict[str, Any]]], Any]


class UnknownRole(Exception):
    """`headrace serve` knows the roles registry, features, features_replica, ps, replica, ann, engine, watch and lake."""


class RoleNeeds(Exception):
    """Something that the role imports is not installed; the message says what to install."""


def serve(config: Config, role: str, index: int = 0) -> None:
    """Run `role` until SIGTERM or SIGINT. What its `start` names among specs, publish and consume is handed to it."""
    if role not in ROLES:
        raise UnknownRole(f"{role!r} is no role; the roles are {', '.join(ROLES)}")
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s %(message)s",
                        datefmt="%Y-%m-%d %H:%M:%S")
    for chatty in ("httpx", "faiss"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        start = importlib.import_module(f"headrace.roles.{role}").start
    except ModuleNotFoundError as error:
        raise RoleNeeds(f"the role {role} needs the package {error.name}: pip install 'headrace[{EXTRAS.get(role, 'serve')}]'") from None
    log.info("%s %d starts", role, index)
    stop = start(config, index, **_asked(start, config, role))
    log.info("%s %d runs", role, index)
    ended.wait()
    log.info("%s %d stops", role, index)
    stop()


def _asked(start: Callable[..., Any], config: Config, role: str) -> dict[str, Any]:
    """What the parameters of `start` name. One that takes `flush` too wants `publish` to queue only."""
    names = inspect.signature(start).parameters
    given: dict[str, Any] = {}
    if "specs" in names:
        given["specs"] = specs(config.trained if role == "ps" else [config.model])
    if "publish" in names:
        publisher = Publisher(config)
        given |= {"publish": publisher.queue, "flush": publisher.flush} if "flush" in names else {"publish": publisher}
    if "owners_log" in names and config.ps.standbys:
        from headrace.owners_log import KafkaOwnersLog

        given["owners_log"] = KafkaOwnersLog(config)
    if "consume" in names:
        given["consume"] = consumer(config, role)
    if "source" in names:
        from headrace.lake.topic import KafkaSamples

        given["source"] = KafkaSamples(config)
    for name, topic in (("exposures", "enriched"), ("samples", "samples"), ("events", "interactions")):
        if name in names:
            given[name] = partial(_follow, config, topic)
    return given


def specs(models: list[Model]) -> list[Any]:
    """The parameter server's tables for `models`."""
    from headrace.models.spec import model_spec
    from headrace.ps.spec import ModelSpec

    return [ModelSpec.from_json(model_spec(
        model.name, model.version, model.factors, model.optimizer, model.learning_rate, model.init_scale,
        model.room)) for model in models]


class Publisher:
    """publish(topic, key, record): encodes, sends, and returns when the broker has it. For many records: `queue` each, then `flush`."""

    def __init__(self, config: Config) -> None:
        from headrace.kafka import Producer

        # A pass of many small records leaves as few requests: a flush waits for no linger, and without one each record is a request,
        # here, at the broker and at each reader.
        self._producer = Producer(config.kafka.cluster, linger_ms=5)
        self._codecs = Codecs(config)

    def __call__(self, topic: str, key: bytes, record: dict[str, Any]) -> None:
        self.queue(topic, key, record)
        self.flush()

    def queue(self, topic: str, key: bytes, record: dict[str, Any]) -> None:
        self._producer.send(topic, key, self._codecs.of(topic).encode(record))

    def flush(self) -> None:
        """Raises Undelivered unless the broker has all that was queued."""
        self._producer.flush()


def consumer(config: Config, role: str) -> Callable[[Fold, threading.Event], None]:
    """consume(fold_many, stop): the role's topic from its beginning, decoded and in order, until `stop` is set."""
    topic = {"replica": f"weights.{config.model.name}", "ann": "vectors"}[role]
    return partial(_consume, config, topic)


def _consume(config: Config, topic: str, fold_many: Fold, stop: threading.Event) -> None:
    for records in _decoded(config, topic, stop, "earliest"):
        fold_many([record for _, record in records])


def _follow(config: Config, topic: str, take: Callable[[list[tuple[int, dict[str, Any]]]], Any], stop: threading.Event) -> None:
    """Hand (append time in ms, decoded record) of what comes from now on to `take`, until `stop` is set."""
    for records in _decoded(config, topic, stop, "end"):
        take(records)


def _decoded(config: Config, topic: str, stop: threading.Event, start: Any) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    from headrace.kafka import read_batches
    from headrace.schemas.errors import Malformed

    codec = Codecs(config).of(topic)
    for batch in read_batches(config.kafka.cluster, topic, stop, start, records_max=RECORDS_MAX, wait_s=WAIT_S):
        records = []
        for record in batch:
            try:
                if record.value is not None:
                    records.append((record.timestamp_ms, codec.decode(record.value)))
            except Malformed as error:
                # Absolute values follow: one unreadable record must not end a fold that the next ones mend.
                log.error("%s/%d@%d is not readable: %s", topic, record.partition, record.offset, error)
        if records:
            yield records


class Codecs:
    """A codec a topic, made when first needed, over one client of the registry."""

    def __init__(self, config: Config) -> None:
        from headrace.schemas.registry import RegistryClient

        self._registry = RegistryClient(config.registry.access)
        self._made: dict[str, Any] = {}

    def of(self, topic: str) -> Any:
        """schemas.codec.Codec of `topic`."""
        from headrace.schemas.codec import Codec, schema_name

        if topic not in self._made:
            self._made[topic] = Codec(schema_name(topic), self._registry)
        return self._made[topic]
