"""Dead letters from inside a Python worker: the one place of streaming/ that talks to Kafka by itself.

A refused record must not fail the job and must not be lost: it is produced and flushed before the function returns, so before Flink's
barrier passes. A replay may send it again; its topic, partition and offset tell the copies.
"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, Producer

from headrace.schemas.codec import Codec
from headrace.schemas.reasons import REASONS

FIRST_BYTES = 256


class DeadLettersLost(Exception):
    """The broker did not take dead letters in time: the job restarts and tries again; look at the broker."""


class DeadLetters:
    """Sends what was refused to `dead-letters`. Connects at the first: most workers never refuse anything.

    `send` early and `flush` late: the client's own threads deliver while the call goes on with what is good.
    """

    def __init__(self, bootstrap: str, codec: Codec, properties: dict[str, str] | None = None) -> None:
        self._settings = {"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 1,
                          "compression.type": "lz4", **(properties or {})}
        self._connected: Producer | None = None
        self._codec = codec
        self._failed: list[str] = []

    @property
    def _producer(self) -> Producer:
        if self._connected is None:
            self._connected = Producer(self._settings)
        return self._connected

    def send(self, topic: str, partition: int, offset: int, reason: str, detail: str, value: bytes) -> None:
        """Queue a letter of the record at `offset`; `reason` is a code of schemas.reasons. `flush` makes it safe."""
        assert reason in REASONS, f"{reason!r} is not in schemas/reasons.py"
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
        failed, self._failed = self._failed, []
        if left or failed:
            raise DeadLettersLost(f"{left} waiting, {len(failed)} failed: {failed[:1]}")

    def _delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._failed.append(str(error))
