"""What a trace asks of a running stack: topics from a time on, one partition where the key tells it, and what shards know of a cause."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from headrace import kafka
from headrace.config import Config
from headrace.ps.index import kernel_input
from headrace.ps.kernels import slots_of
from headrace.ps.shard import shard_of
from headrace.rpc.client import Client
from headrace.rpc.message import Arrays
from headrace.schemas.errors import Malformed
from headrace.schemas.hashing import partition_of
from headrace.serve import Codecs
from headrace.trace_hops import Place, Record, Seen, UnknownEvent

TOPIC = "interactions"


class LiveTopics:
    """Kafka and the shards of `config`'s stack (trace_hops.Topics)."""

    def __init__(self, config: Config) -> None:
        self._bootstrap = config.kafka.cluster
        self._codecs = Codecs(config)
        self._shards = [Client(address) for address in config.ps.reachable]
        self.source = kafka.topic_source(self._bootstrap, TOPIC)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def at(self, place: Place) -> Seen:
        """The interaction at (partition, offset). Raises UnknownEvent."""
        record = kafka.fetch(self._bootstrap, TOPIC, [place]).get(place)
        if record is None:
            held = kafka.watermarks(self._bootstrap, TOPIC)
            there = ", ".join(f"{p}:{low} to {p}:{high - 1}" for p, (low, high) in held.items() if high > low) or "nothing"
            raise UnknownEvent(f"interactions has no record {place[0]}:{place[1]}; it holds {there}")
        return self._seen(record)

    def named(self, event_id: str, start_ms: int, stop_ms: int) -> list[Seen]:
        """Interactions of that event_id, in the order of time; one that cannot be read only when no other has its bytes."""
        records, bytes_ = self._between(TOPIC, start_ms, stop_ms, None), avro_text(event_id)
        found = [self._seen(record) for record in records if bytes_ in (record.value or b"")]
        read = [one for one in found if one.record.get("event_id") == event_id]
        return sorted(read or [one for one in found if not one.record], key=lambda one: one.at_ms)

    def scan(self, topic: str, start_ms: int, stop_ms: int, key: str | None = None) -> Iterator[Seen]:
        """Readable records taken from `start_ms` to before `stop_ms`, each partition in its order; with `key` only those under it."""
        wanted = None if key is None else key.encode()
        for record in self._between(topic, start_ms, stop_ms, wanted):
            seen = self._seen(record) if wanted in (None, record.key) else None
            if seen is not None and seen.record:
                yield seen

    def known(self, model: str, target: str, place: Place) -> list[int]:
        """Of each shard: 0 the cause is not applied, 1 it is, 2 it lies before the ring. Raises Unavailable."""
        cause: Arrays = {"source": np.array([self.source], np.int32), "partition": np.array([place[0]], np.int32),
                         "offset": np.array([place[1]], np.int64)}
        answers = [shard.call_until(5.0, "known", {"model": model, "effect": target}, cause) for shard in self._shards]
        return [int(arrays["status"][0]) for _, arrays in answers]

    def slot(self, key: int) -> tuple[int, int]:
        """(slot, shard) of a row's key."""
        slots = slots_of(kernel_input(np.array([key], np.uint64)))
        return int(slots[0]), int(shard_of(slots, len(self._shards))[0])

    def close(self) -> None:
        for shard in self._shards:
            shard.close()

    def _between(self, topic: str, start_ms: int, stop_ms: int, key: bytes | None) -> Iterator[kafka.Record]:
        """Records with a value; the partition of `key` alone, since all our producers partition by murmur2."""
        start, stop = kafka.since_each(self._bootstrap, topic, (max(start_ms, 0), stop_ms))
        chosen = stop if key is None else [partition_of(key, len(stop))]
        wanted = {p: stop[p] for p in chosen if stop[p] > start[p]}
        if wanted:
            yield from (one for one in kafka.read_between(self._bootstrap, topic, start, wanted) if one.value is not None)

    def _seen(self, record: kafka.Record) -> Seen:
        try:
            decoded: Record = self._codecs.of(record.topic).decode(record.value)
        except Malformed:
            decoded = {}
        return Seen(record.topic, record.partition, record.offset, record.timestamp_ms, decoded)


def avro_text(text: str) -> bytes:
    """`text` as it stands within an Avro datum: its length as a zigzag varint, then UTF-8."""
    data = text.encode()
    left, size = 2 * len(data), bytearray()
    while left > 0x7F:
        size.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*size, left]) + data


@contextmanager
def live_topics(config: Config) -> Iterator[LiveTopics]:
    """Of `config`'s stack. A client that finds no broker says so twenty times a second: here it is raised once, as a sentence."""
    level = kafka.client_log.level
    kafka.client_log.setLevel(logging.CRITICAL)
    try:
        topics = LiveTopics(config)
        try:
            yield topics
        finally:
            topics.close()
    finally:
        kafka.client_log.setLevel(level)
