"""Topic `labels` of a running stack."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing

from headrace import kafka
from headrace.config import Config
from headrace.labels.label import Label, Unit, newest
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed
from headrace.schemas.registry import RegistryClient

TOPIC = "labels"
log = logging.getLogger(__name__)


class Sink:
    """Writes labels, under their items' keys."""

    def __init__(self, config: Config) -> None:
        self._registry = RegistryClient(config.registry.access)
        self._codec, self._producer = Codec(TOPIC, self._registry), kafka.Producer(config.kafka.cluster)

    def put(self, labels: Iterable[Label]) -> int:
        """How many, once the broker has all. Raises Undelivered, RegistryUnavailable."""
        count = 0
        for one in labels:
            self._producer.send(TOPIC, one.unit.item_id, self._codec.encode(one.record()))
            count += 1
        self._producer.flush()
        return count

    def close(self) -> None:
        self._registry.close()


def send(config: Config, labels: Iterable[Label]) -> int:
    """Write them; how many. Raises KafkaUnavailable, Undelivered, RegistryUnavailable."""
    kafka.reach(config.kafka.cluster)
    with closing(Sink(config)) as sink:
        return sink.put(labels)


def held(config: Config) -> list[Label]:
    """The last word of each labeller on each unit. What another has written there, and nobody can read, is said and passed by. Raises
    KafkaUnavailable."""
    kafka.reach(config.kafka.cluster)
    return newest(_all(config))


def _all(config: Config) -> Iterator[Label]:
    stop = {partition: high for partition, (_, high) in kafka.watermarks(config.kafka.cluster, TOPIC).items()}
    with closing(RegistryClient(config.registry.access)) as registry:
        codec = Codec(TOPIC, registry)
        for one in kafka.read_between(config.kafka.cluster, TOPIC, {}, stop):
            try:
                record = codec.decode(one.value or b"")
            except Malformed as error:
                log.warning("%s %d:%d is left out: %s", TOPIC, one.partition, one.offset, error)
                continue
            unit = Unit(record["item_id"], record["user_id"], record["target"])
            yield Label(unit, record["label"], record["labeller"], record["ts_ms"])
