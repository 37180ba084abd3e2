"""What a topic's records became, written once: into `interactions` and `dead-letters`, with how far the topic was read, in one transaction.

The transactions are Kafka's (KIP-98), one writer a partition of the topic that is read, each under a transactional id of its own. A writer
that begins ends what its predecessor left open and shuts that out, should it still live; then it asks the group how far the last committed
transaction went, and what lies before is not written again. A transaction lives within one call of the stage: some milliseconds, not a
checkpoint.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.schemas.access import Cluster
from headrace.schemas.hashing import source_number

# A worker that dies within a transaction holds back whoever reads behind it, until its successor ends that or this is over.
TIMEOUT_MS = 10_000
ASK_S = 10.0
COMMIT_S = 30.0
COMMITS = 8  # at once
OFFSETS_S = 20.0


class NotWritten(Exception):
    """A transaction did not come about: nothing of it is seen, and the job restarts and reads its records again; look at the broker."""


class OtherTopic(Exception):
    """The topic is not the one that the ingest began with, or was cut back: stop the ingest and begin one under another name."""


@dataclass
class Part:
    """What records of one partition became: (topic, key, value) in order; `following`: the offset behind the last of them."""

    records: list[tuple[str, bytes | None, bytes]] = field(default_factory=list)
    following: int = 0


def group_of(name: str, source: int) -> str:
    """The consumer group that holds how far the ingest `name` has come in the topic of number `source`, which is of its uuid."""
    return f"headrace-ingest-{name}-{source:08x}"


class Writers:
    """Writes as the group `group` reads `topic`. Connects to a partition when its first record comes."""

    def __init__(self, where: Cluster | str, group: str, topic: str) -> None:
        self._where, self._group, self._topic = where, group, topic
        self._member = member(where, group)
        self._writers: dict[int, Producer] = {}
        self._threads = ThreadPoolExecutor(COMMITS)
        self._next: dict[int, int] = {}

    def begin(self) -> None:
        """Take over every partition that the topic has. Raises NotWritten."""
        try:
            partitions = self._member.list_topics(self._topic, timeout=ASK_S).topics[self._topic].partitions
        except KafkaException as error:
            raise NotWritten(f"{self._topic} at {self._where}: {words(error)}") from None
        for _ in self._threads.map(self.next, sorted(partitions)):
            pass

    def next(self, partition: int) -> int:
        """The offset from which on records of `partition` were not written yet. Raises NotWritten."""
        if partition not in self._next:
            try:
                self._begin(partition)
            except KafkaException as error:
                raise NotWritten(f"partition {partition} of {self._topic}: no transactions at {self._where}: {words(error)}") from None
        return self._next[partition]

    def first(self, partition: int) -> int:
        """The offset of the first record of `partition` that was not written yet, there being one. Raises NotWritten."""
        self._member.assign([TopicPartition(self._topic, partition, self.next(partition))])
        message = self._member.poll(ASK_S)
        self._member.unassign()
        if message is None or message.error() is not None:
            raise NotWritten(f"partition {partition} of {self._topic} gives nothing: {message and message.error()}")
        offset = message.offset()
        assert offset is not None, "a record that was read lies somewhere"
        return offset

    def _begin(self, partition: int) -> None:
        writer = Producer({"transactional.id": f"{self._group}-{partition}", "transaction.timeout.ms": TIMEOUT_MS, "linger.ms": 5,
                           "compression.type": "lz4", "partitioner": "murmur2_random", **_reached(self._where)})
        writer.init_transactions(COMMIT_S)
        self._next[partition] = max(0, offsets_of(self._member, self._topic, [partition])[partition])
        self._writers[partition] = writer

    def write(self, parts: dict[int, Part]) -> None:
        """One transaction a partition, all at once; each is seen whole or not at all. Raises NotWritten."""
        if len(parts) == 1:
            self._write(*next(iter(parts.items())))
        else:
            for _ in self._threads.map(self._write, parts, parts.values()):
                pass

    def _write(self, partition: int, part: Part) -> None:
        writer = self._writers[partition]
        try:
            writer.begin_transaction()
            for topic, key, value in part.records:
                _produce(writer, topic, key, value)
            where, group = [TopicPartition(self._topic, partition, part.following)], self._member.consumer_group_metadata()
            _within(OFFSETS_S, lambda: writer.send_offsets_to_transaction(where, group, COMMIT_S))
            _commit(writer)
        except KafkaException as error:
            _abort(writer)
            raise NotWritten(f"partition {partition} of {self._topic}, {len(part.records)} records: {words(error)}") from None
        self._next[partition] = part.following

    def close(self) -> None:
        """Leave nothing open."""
        self._threads.shutdown()
        self._member.close()


def _within(seconds: float, work: Callable[[], Any]) -> None:
    """Do `work`, or raise NotWritten when it goes on for longer. librdkafka 2.16 may send offsets for ever when a broker went away,
    whatever time it is given (confluentinc/librdkafka issue 5456); the thread that waits there ends with its process."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="offsets", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise NotWritten(f"the broker has not taken offsets within {seconds:.0f} s")
    if failed:
        raise failed[0]


def _produce(writer: Producer, topic: str, key: bytes | None, value: bytes) -> None:
    while True:
        try:
            writer.produce(topic, key=key, value=value)
            return
        except BufferError:
            writer.poll(0.05)


def _commit(writer: Producer) -> None:
    """Sends what is queued, too."""
    ends = time.monotonic() + COMMIT_S
    while True:
        try:
            writer.commit_transaction(COMMIT_S)
            return
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > ends:
                raise


def _abort(writer: Producer) -> None:
    try:
        writer.abort_transaction(ASK_S)
    except KafkaException:  # the successor ends it
        pass


# How far a group has come: asked for by whoever submits an ingest, too.


def source_of(where: Cluster | str, topic: str) -> int:
    """The source number of `topic` as it is now. Raises KafkaException."""
    admin = AdminClient(_reached(where))
    found = admin.describe_topics(TopicCollection([topic]), request_timeout=ASK_S)[topic]
    return source_number(str(found.result(ASK_S).topic_id))


def committed(where: Cluster | str, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """partition -> the offset that `group` reads next, of those where it has read or has been put. Raises KafkaException."""
    consumer = member(where, group)
    try:
        return {partition: offset for partition, offset in offsets_of(consumer, topic, partitions).items() if offset >= 0}
    finally:
        consumer.close()


def put(where: Cluster | str, group: str, topic: str, offsets: dict[int, int]) -> None:
    """Have `group` begin at `offsets`. Raises KafkaException."""
    consumer = member(where, group)
    try:
        consumer.commit(offsets=[TopicPartition(topic, partition, offset) for partition, offset in offsets.items()], asynchronous=False)
    finally:
        consumer.close()


def offsets_of(consumer: Consumer, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """partition -> the offset that the group of `consumer` reads next, -1 or less where there is none. With read_committed the broker waits
    for a transaction that is about to end. Raises KafkaException."""
    found = consumer.committed([TopicPartition(topic, partition) for partition in partitions], timeout=ASK_S)
    for one in found:
        if one.error is not None:
            raise KafkaException(one.error)
    return {one.partition: one.offset for one in found}


def member(where: Cluster | str, group: str) -> Consumer:
    """Speaks for a group without joining it; reads what is committed."""
    return Consumer({"group.id": group, "enable.auto.commit": False, "isolation.level": "read_committed",
                     "auto.offset.reset": "earliest", **_reached(where)})


def _reached(where: Cluster | str) -> dict[str, Any]:
    return {"broker.address.family": "v4", "log_level": 3, **(where if isinstance(where, Cluster) else Cluster(where)).librdkafka()}


def words(error: KafkaException) -> str:
    first = error.args[0] if error.args else error
    return first.str() if hasattr(first, "str") else str(first)
