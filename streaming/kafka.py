"""Dead letters from inside a Python worker: the one place of streaming/ that talks to Kafka by itself.

A refused record must not fail the job and must not be lost: it is produced and flushed before the function returns, so before Flink's
barrier passes. A replay may send it again; its topic, partition and offset tell the copies.
"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, Producer

from headrace.schemas.codec import Codec

FIRST_BYTES = 256


class DeadLettersLost(Exception):
    """The broker did not take dead letters in time: the job restarts and tries again; look at the broker."""


class DeadLetters:
    """Sends what was refused to `dead-letters`."""

    def __init__(self, bootstrap: str, codec: Codec, properties: dict[str, str] | None = None) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 1,
                                   "compression.type": "lz4", **(properties or {})})
        self._codec = codec
        self._failed: list[str] = []

    def send(self, topic: str, partition: int, offset: int, reason: str, detail: str, value: bytes) -> None:
        record: dict[str, Any] = {"topic": topic, "partition": partition, "offset": offset, "reason": reason, "detail": detail[:1024],
                                  "first_bytes": value[:FIRST_BYTES], "ts_ms": int(time.time() * 1000)}
        data = self._codec.encode(record)
        while True:
            try:
                self._producer.produce("dead-letters", value=data, on_delivery=self._delivered)
                return
            except BufferError:
                self._producer.poll(0.1)

    def flush(self, deadline_s: float = 30.0) -> None:
        """Wait until the broker has all. Raises DeadLettersLost."""
        left = self._producer.flush(deadline_s)
        if left or self._failed:
            raise DeadLettersLost(f"{left} waiting, {len(self._failed)} failed: {self._failed[:1]}")

    def _delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._failed.append(str(error))
