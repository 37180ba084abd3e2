"""Dead letters, and what else a Python worker sends by itself, past Flink's sinks.

A refused record must not fail the job and must not be lost: it is produced and flushed before the function returns, so before Flink's
barrier passes. A replay may send it again; its topic, partition and offset tell the copies.
"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, Producer

from headrace.schemas.access import Cluster
from headrace.schemas.codec import Codec
from headrace.schemas.reasons import REASONS

FIRST_BYTES = 256


class NotSent(Exception):
    """The broker did not take what a worker sent in time: the job restarts and tries again; look at the broker."""


class Sender:
    """Sends records with acks=all. Connects at the first: most workers never send anything by themselves.

    `send` early and `flush` late: the client's own threads deliver while the call goes on.
    """

    def __init__(self, where: Cluster | str) -> None:
        self._where = where if isinstance(where, Cluster) else Cluster(where)
        self._connected: Producer | None = None
        self._failed: list[str] = []

    @property
    def _producer(self) -> Producer:
        if self._connected is None:
            self._connected = Producer({"acks": "all", "enable.idempotence": True, "linger.ms": 1, "compression.type": "lz4",
                                        "partitioner": "murmur2_random", **self._where.librdkafka()})
        return self._connected

    def send(self, topic: str, key: bytes | None, value: bytes, deadline_s: float = 30.0) -> None:
        """Queue a record; a queue that stays full raises NotSent. `flush` makes it safe."""
        ends = time.monotonic() + deadline_s
        while True:
            try:
                self._producer.produce(topic, key=key, value=value, on_delivery=self._delivered)
                return
            except BufferError:
                if time.monotonic() > ends:
                    raise NotSent(f"the queue for {self._where} stayed full for {deadline_s:.0f} s") from None
                self._producer.poll(0.1)

    def flush(self, deadline_s: float = 30.0) -> None:
        """Wait until the broker has all. Raises NotSent."""
        left = self._producer.flush(deadline_s)
        failed, self._failed = self._failed, []
        if left or failed:
            raise NotSent(f"{left} waiting, {len(failed)} failed: {failed[:1]}")

    def _delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._failed.append(str(error))


class DeadLetters:
    """Sends what was refused to `dead-letters`; `send` early and `flush` late."""

    def __init__(self, where: Cluster | str, codec: Codec) -> None:
        self._sender, self._codec = Sender(where), codec

    def send(self, topic: str, partition: int, offset: int, reason: str, detail: str, value: bytes) -> None:
        """Queue a letter of the record at `offset`; `reason` is a code of schemas.reasons. `flush` makes it safe."""
        assert reason in REASONS, f"{reason!r} is not in schemas/reasons.py"
        record: dict[str, Any] = {"topic": topic, "partition": partition, "offset": offset, "reason": reason, "detail": detail[:1024],
                                  "first_bytes": value[:FIRST_BYTES], "ts_ms": int(time.time() * 1000)}
        self._sender.send("dead-letters", None, self._codec.encode(record))

    def flush(self, deadline_s: float = 30.0) -> None:
        """Wait until the broker has all. Raises NotSent."""
        self._sender.flush(deadline_s)
