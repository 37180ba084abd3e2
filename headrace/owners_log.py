"""The owners' log of the parameter shards (ps/owners.py) as Kafka keeps it: topic `ps-owners`, one partition, kept for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace import kafka
from headrace.config import Config
from headrace.rpc.errors import Unavailable
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed, RegistryUnavailable
from headrace.schemas.registry import RegistryClient

TOPIC = "ps-owners"
DELIVERY_S = 5.0


class KafkaOwnersLog:
    """The log of `config`'s cluster. One thread calls it. Connects when it is first asked."""

    def __init__(self, config: Config) -> None:
        self._where = config.kafka.cluster
        self._registry = RegistryClient(config.registry.access)
        self._codec = Codec(TOPIC, self._registry)
        self._producer: kafka.Producer | None = None

    def append(self, record: dict[str, Any]) -> None:
        """Returns when all in-sync brokers have it. Raises Unavailable: then it may have come through, or may yet."""
        try:
            if self._producer is None:
                self._producer = kafka.Producer(self._where, linger_ms=0, delivery_timeout_ms=int(1000 * DELIVERY_S))
            self._producer.send(TOPIC, record["shard"], self._codec.encode(record), deadline_s=DELIVERY_S)
            self._producer.flush(2 * DELIVERY_S)
        except (kafka.KafkaUnavailable, kafka.Undelivered, RegistryUnavailable) as error:
            raise Unavailable(f"{TOPIC}: {error}") from None

    def read(self, start: int) -> tuple[Sequence[dict[str, Any]], int]:
        """Every record from offset `start` on. Raises Unavailable."""
        try:
            low, end = kafka.watermarks(self._where, TOPIC)[0]
            if start >= end:
                return [], start
            records = kafka.read_between(self._where, TOPIC, {0: max(start, low)}, {0: end}, stuck_s=DELIVERY_S)
            return [self._codec.decode(one.value) for one in records], end
        except (kafka.KafkaUnavailable, RegistryUnavailable, Malformed) as error:
            raise Unavailable(f"{TOPIC}: {error}") from None

    def close(self) -> None:
        self._registry.close()
