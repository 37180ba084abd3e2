"""The topic `samples` of a cluster as a lake's source."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from headrace import kafka
from headrace.config import Config
from headrace.kafka_types import Record
from headrace.lake.source import Read, Topic
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed
from headrace.schemas.registry import RegistryClient

TOPIC = "samples"
RECORDS_MAX, WAIT_S = 2000, 0.2  # of a batch


class KafkaSamples:
    """`samples` of `config`'s cluster, read_committed, without a consumer group: where it was is in the lake's manifests."""

    def __init__(self, config: Config) -> None:
        self._where = config.kafka.cluster
        self._codec = Codec(TOPIC, RegistryClient(config.registry.access))

    def topic(self) -> Topic:
        return Topic(TOPIC, kafka.topic_id(self._where, TOPIC))

    def marks(self) -> dict[int, tuple[int, int]]:
        return kafka.watermarks(self._where, TOPIC)

    def batches(self, start: Mapping[int, int], stop: threading.Event) -> Iterator[Sequence[Read]]:
        """Raises KafkaUnavailable, RegistryUnavailable."""
        for batch in kafka.read_batches(self._where, TOPIC, stop, start, records_max=RECORDS_MAX, wait_s=WAIT_S):
            yield [self._read(record) for record in batch]

    def _read(self, record: Record) -> Read:
        try:
            return Read(record.partition, record.offset, record.timestamp_ms, self._codec.decode(record.value))
        except Malformed as error:
            return Read(record.partition, record.offset, record.timestamp_ms, None, str(error))
