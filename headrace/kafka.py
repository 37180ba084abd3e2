"""Kafka for everything that is not a Flink job: produce, create topics, read by assignment, ask for offsets.

One of two importers of confluent_kafka here (kafka_admin.py). Nothing joins a consumer group: a reader says where it starts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from headrace.kafka_types import KafkaUnavailable, Record, TopicMismatch, Undelivered, WantedTopic, client_log, quiet_log
from headrace.schemas.access import Cluster
from headrace.schemas.hashing import source_number
from headrace.tls_probe import complaint

log = logging.getLogger(__name__)

REACH_S = 8.0
SILENT_S = 10.0
COMING_BACK = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART,
               KafkaError._UNKNOWN_PARTITION}
FAR = 1000  # offsets from which on a new place is looked up instead of reading on
_SET = AlterConfigOpType.SET
Start = Literal["earliest", "end"] | Mapping[int, int]
Where = Cluster | str  # a cluster, or the address of one that asks nobody who he is


def settings(where: Where, **more: Any) -> dict[str, Any]:
    """librdkafka's settings of a client."""
    # librdkafka writes connection errors to stderr by itself: they go to a logger, and what matters is raised as a sentence.
    reached = (where if isinstance(where, Cluster) else Cluster(where)).librdkafka()
    return {"logger": client_log, "log_level": 3, "socket.timeout.ms": 10000, "broker.address.family": "v4",
            "reconnect.backoff.max.ms": 1000, **more, **reached}


def _admin(where: Where, **more: Any) -> AdminClient:
    return AdminClient(settings(where, **more))


def _unavailable(where: Where, error: Exception | str) -> KafkaUnavailable:
    return KafkaUnavailable(f"no Kafka broker answers at {where} ({error}); is the stack up? `headrace status` says, and of a cluster"
                            " elsewhere `headrace connect check`")


def reach(where: Where, timeout_s: float = REACH_S) -> None:
    """Return when a broker answers. Raises KafkaUnavailable after `timeout_s`, at once for what will not mend itself: a password, a
    certificate, a name that nobody knows."""
    heard: list[KafkaError] = []
    try:
        admin = _admin(where, error_cb=heard.append, logger=quiet_log)  # what it would log is raised
    except KafkaException as error:
        raise KafkaUnavailable(f"Kafka at {where} cannot be reached with these settings: {_words(error)}") from None
    ends = time.monotonic() + timeout_s
    while True:
        try:
            admin.list_topics(timeout=max(0.1, min(1.0, ends - time.monotonic())))
            return
        except KafkaException as error:
            admin.poll(0)
            lasting = next((one for one in heard if one.code() in _LASTING), None)
            if lasting is not None:
                raise KafkaUnavailable(f"Kafka at {where}: {_said(where, lasting)}") from None
            if time.monotonic() >= ends:
                last = next((one.str() for one in reversed(heard) if one.code() != KafkaError._ALL_BROKERS_DOWN), _words(error))
                raise _unavailable(where, last) from None


_LASTING = {KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE}


def _said(where: Where, error: KafkaError) -> str:
    """A sentence for an error of _LASTING: what, and which setting to look at."""
    text = error.str().split(": ", 1)[-1]
    if error.code() == KafkaError._RESOLVE:
        return f"nobody knows this host ({text}): look at kafka.bootstrap"
    if error.code() == KafkaError._SSL:
        told = complaint(where) if isinstance(where, Cluster) else ""
        if "expired" in told:
            return f"its {told}: the cluster needs a new one"
        return f"TLS fails ({told or text}): look at kafka.security and kafka.tls_ca"
    user = where.username if isinstance(where, Cluster) else ""
    return f"it does not let {user!r} in ({text}): look at kafka.username, kafka.mechanism and kafka.password_file"


def _words(error: KafkaException) -> Exception:
    first = error.args[0] if error.args else error
    return RuntimeError(first.str()) if isinstance(first, KafkaError) else error


class Producer:
    """Sends with acks=all, idempotence and lz4, partitioned as the Java client does (murmur2). Safe for several threads."""

    def __init__(self, where: Where, **extra: Any) -> None:
        """`extra`: librdkafka settings with _ for dots, linger_ms=0 for instance."""
        more = {name.replace("_", "."): value for name, value in extra.items()}
        self._producer = ConfluentProducer(settings(where, **{
            "acks": "all", "enable.idempotence": True, "compression.type": "lz4", "partitioner": "murmur2_random", "linger.ms": 5,
            "delivery.timeout.ms": 30000, **more}))
        self._failed: list[str] = []
        self._where = where

    def send(self, topic: str, key: bytes | str | None, value: bytes | None, on_delivery: Callable[[Any, Any], None] | None = None,
             deadline_s: float = 30.0, headers: dict[str, bytes] | None = None) -> None:
        """Queue one record; `on_delivery(error or None, message)` is called from a later `send`, `poll` or `flush`.

        A full queue waits up to `deadline_s`, then raises Undelivered.
        """
        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                self._failed.append(f"{topic}: {error}")
            if on_delivery is not None:
                on_delivery(error, message)

        ends = time.monotonic() + deadline_s
        while True:
            try:
                self._producer.produce(topic, key=key, value=value, on_delivery=delivered, headers=dict(headers or {}))
                break
            except BufferError:
                if time.monotonic() > ends:
                    raise Undelivered(f"the queue for {self._where} stayed full for {deadline_s:.0f} s: {self._failed[:1]}") from None
                self._producer.poll(0.05)
        self._producer.poll(0)

    def poll(self, seconds: float = 0.0) -> None:
        """Serve delivery callbacks for up to `seconds`."""
        self._producer.poll(seconds)

    def flush(self, deadline_s: float = 30.0) -> None:
        """Wait until the broker has all that was sent. Raises Undelivered for anything it does not have, then or before."""
        left = self._producer.flush(deadline_s)
        failed, self._failed = self._failed, []
        if left or failed:
            raise Undelivered(f"{self._where}: {left} records waiting after {deadline_s:.0f} s, {len(failed)} failed {failed[:1]}")


def ensure_topics(where: Where, topics: Iterable[WantedTopic], timeout_s: float = 30.0) -> list[str]:
    """Create the topics that do not exist, bring the settings of the others to what is wanted, return the names of those created.

    Raises KafkaUnavailable, and TopicMismatch when a topic has another number of partitions.
    """
    reach(where)
    admin = _admin(where)
    wanted = list(topics)
    present = admin.list_topics(timeout=REACH_S).topics
    new = [topic for topic in wanted if topic.name not in present]
    for topic in wanted:
        found = len(present[topic.name].partitions) if topic.name in present else topic.partitions
        if topic.partitions and found != topic.partitions:
            raise TopicMismatch(f"topic {topic.name} has {found} partitions and {topic.partitions} are configured (kafka.partitions)")
    creating = admin.create_topics([NewTopic(t.name, t.partitions or 1, -1, config=t.config()) for t in new]) if new else {}
    for name, made in creating.items():
        try:
            made.result(timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise KafkaUnavailable(f"topic {name} could not be created: {_words(error)}") from None
    old = [topic for topic in wanted if topic.name in present]
    if old:
        entries = [ConfigResource(ConfigResource.Type.TOPIC, t.name, incremental_configs=[
            ConfigEntry(k, v, incremental_operation=_SET) for k, v in t.config().items()]) for t in old]
        for resource, altered in admin.incremental_alter_configs(entries).items():
            try:
                altered.result(timeout_s)
            except KafkaException as error:
                raise KafkaUnavailable(f"the settings of topic {resource.name} could not be brought to what they should be: "
                                       f"{_words(error)}") from None
    _await_leaders(admin, {topic.name for topic in wanted}, timeout_s)
    return [topic.name for topic in new]


def _await_leaders(admin: AdminClient, names: set[str], timeout_s: float) -> None:
    """A topic just created answers "unknown" until its leaders are elected; wait for that here, once."""
    ends = time.monotonic() + timeout_s
    while True:
        found = admin.list_topics(timeout=REACH_S).topics
        if all(name in found and found[name].partitions and all(p.leader >= 0 for p in found[name].partitions.values()) for name in names):
            return
        if time.monotonic() > ends:
            raise KafkaUnavailable(f"topics have no leader after {timeout_s:.0f} s: {sorted(names - set(found))}")
        time.sleep(0.05)


def partitions(where: Where) -> dict[str, int]:
    """topic -> how many partitions it has, of all that may be seen. Raises KafkaUnavailable."""
    try:
        return {name: len(topic.partitions) for name, topic in _admin(where).list_topics(timeout=REACH_S).topics.items()}
    except KafkaException as error:
        raise _unavailable(where, _words(error)) from None


def topic_source(where: Where, topic: str) -> int:
    """The source number of `topic` in causes: a hash of its uuid, so a topic made anew is another source."""
    return source_number(topic_id(where, topic))


def topic_id(where: Where, topic: str) -> str:
    """The uuid of `topic`. Raises KafkaUnavailable."""
    reach(where)
    admin = _admin(where)  # kept alive until the answer is there
    found = admin.describe_topics(TopicCollection([topic]), request_timeout=REACH_S)[topic]
    try:
        return str(found.result(REACH_S).topic_id)
    except KafkaException as error:
        raise KafkaUnavailable(f"topic {topic} at {where}: {_words(error)}") from None


def watermarks(where: Where, topic: str) -> dict[int, tuple[int, int]]:
    """partition -> (first offset kept, offset that the next record gets). Raises KafkaUnavailable."""
    consumer = _consumer(where)
    try:
        return _watermarks(consumer, where, topic)
    finally:
        consumer.close()


def since(where: Where, topic: str, ts_ms: int) -> dict[int, int]:
    """partition -> offset of the first record that the broker took at `ts_ms` or later, else of the next. Raises KafkaUnavailable."""
    return since_each(where, topic, (ts_ms,))[0]


def since_each(where: Where, topic: str, times_ms: Iterable[int]) -> list[dict[int, int]]:
    """`since` of several times over one connection."""
    consumer = _consumer(where)
    try:
        marks, made = _watermarks(consumer, where, topic), []
        for ts_ms in times_ms:
            found = consumer.offsets_for_times([TopicPartition(topic, p, ts_ms) for p in marks], timeout=REACH_S)
            made.append({one.partition: one.offset if one.offset >= 0 else marks[one.partition][1] for one in found})
        return made
    except KafkaException as error:
        raise _unavailable(where, _words(error)) from None
    finally:
        consumer.close()


def span(where: Where, topic: str, start: Mapping[int, int], stop: Mapping[int, int]) -> Iterator[Record]:
    """Records from `start` to before `stop`, each partition in its order. Raises KafkaUnavailable after 10 s of silence.

    The last offset may be a hole (a transaction marker): two seconds of silence after a record are taken as the end.
    """
    open_partitions = {p for p, high in stop.items() if high > start.get(p, 0)}
    if not open_partitions:
        return
    end, heard, came = threading.Event(), time.monotonic(), False
    for batch in read_batches(where, topic, end, {p: start.get(p, 0) for p in stop}, records_max=2000, wait_s=0.05):
        for record in batch:
            if record.offset >= stop.get(record.partition, 0) - 1:
                open_partitions.discard(record.partition)
            if record.offset < stop.get(record.partition, 0):
                yield record
        if batch:
            heard, came = time.monotonic(), True
        silent_s = time.monotonic() - heard
        if not open_partitions or (came and silent_s > 2.0):
            return
        if silent_s > SILENT_S:
            raise KafkaUnavailable(f"{where} gave no record of {topic} for {SILENT_S:.0f} s; `headrace status` shows whether it runs")


def fetch(where: Where, topic: str, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Record]:
    """The records at (partition, offset) that the topic still holds. Raises KafkaUnavailable."""
    places: dict[int, list[int]] = {}
    for partition, offset in sorted(set(wanted)):
        places.setdefault(partition, []).append(offset)
    found: dict[tuple[int, int], Record] = {}
    consumer = _consumer(where)
    try:
        marks = _watermarks(consumer, where, topic) if places else {}
        for partition, offsets in places.items():
            first, next_one = marks.get(partition, (0, 0))
            _fetch(consumer, topic, partition, [one for one in offsets if first <= one < next_one], found)
    finally:
        consumer.close()
    return found


def _fetch(consumer: Consumer, topic: str, partition: int, offsets: list[int], found: dict[tuple[int, int], Record]) -> None:
    """Ascending `offsets` of one partition, read on from one to the next where that is near."""
    at, heard, wanted = -FAR, time.monotonic(), set(offsets)
    while offsets:
        if offsets[0] - at >= FAR:
            consumer.assign([TopicPartition(topic, partition, offsets[0])])
            at = offsets[0] - 1
        for message in consumer.consume(FAR, 0.1):
            if message.error() is None and message.partition() == partition:
                record = _record(message)
                heard, at = time.monotonic(), record.offset
                if at in wanted:
                    found[partition, at] = record
        offsets = [one for one in offsets if one > at]  # an offset that was passed over is a hole
        if offsets and time.monotonic() - heard > SILENT_S:
            raise KafkaUnavailable(f"partition {partition} of {topic} gave nothing from offset {offsets[0]} on for {SILENT_S:.0f} s")


def read(where: Where, topic: str, stop: threading.Event, start: Start = "earliest") -> Iterator[Record]:
    """Records of all partitions, each in its order, until `stop` is set. Raises KafkaUnavailable when no broker answers at the start.

    `start`: "earliest", "end" (what comes after this call) or {partition: offset}, a partition not named there from its beginning.
    """
    for batch in read_batches(where, topic, stop, start, wait_s=0.1):
        yield from batch


def read_batches(where: Where, topic: str, stop: threading.Event, start: Start = "earliest", *, records_max: int = 512,
                 wait_s: float = 0.005) -> Iterator[list[Record]]:
    """As `read`, in lists of up to `records_max` or what came within `wait_s`; an empty list when nothing came."""
    consumer = _consumer(where)
    try:
        marks = _watermarks(consumer, where, topic)
        consumer.assign([TopicPartition(topic, p, _first(start, p, high)) for p, (_, high) in sorted(marks.items())])
        while not stop.is_set():
            batch = []
            for message in consumer.consume(records_max, wait_s):
                error = message.error()
                if error is None:
                    batch.append(_record(message))
                elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise KafkaUnavailable(f"topic {topic} is gone from {where}")
                elif error.code() != KafkaError._PARTITION_EOF:
                    log.warning("reading %s: %s", topic, error)  # librdkafka goes on trying
            yield batch
    finally:
        consumer.close()


def read_between(where: Where, topic: str, start: Mapping[int, int], stop: Mapping[int, int], stuck_s: float = 30.0) -> Iterator[Record]:
    """Records of the partitions of `stop`, from `start` (a partition not named there from its beginning) to before `stop`.

    Ends by position, since an offset may hold no record. Raises KafkaUnavailable when nothing comes for `stuck_s`.
    """
    consumer = _consumer(where)
    try:
        marks = _watermarks(consumer, where, topic)
        at = {p: max(start.get(p, 0), marks[p][0]) for p in stop}
        consumer.assign([TopicPartition(topic, p, offset) for p, offset in at.items()])
        moved = time.monotonic()
        while missing := [TopicPartition(topic, p) for p in stop if at[p] < stop[p]]:
            came: list[Any] = consumer.consume(512, 0.1)
            for message in came:
                if message.error() is None and message.offset() < stop[message.partition()]:
                    yield _record(message)
            asked: list[Any] = consumer.position(missing)
            now = {one.partition: max(one.offset, at[one.partition]) for one in asked}
            moved = time.monotonic() if any(at[p] != offset for p, offset in now.items()) else moved
            at |= now
            if time.monotonic() > moved + stuck_s:
                raise KafkaUnavailable(f"{topic} at {where} was read to {at} of {dict(stop)}, and nothing comes for {stuck_s:.0f} s")
    finally:
        consumer.close()


def _record(message: Any) -> Record:
    return Record(message.topic(), message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value())


def _consumer(where: Where) -> Consumer:
    return Consumer(settings(where, **{"group.id": "headrace-unused", "enable.auto.commit": False, "auto.offset.reset": "earliest",
                                            "fetch.wait.max.ms": 100, "isolation.level": "read_committed"}))


def _watermarks(consumer: Consumer, where: Where, topic: str) -> dict[int, tuple[int, int]]:
    try:
        found = consumer.list_topics(topic, timeout=REACH_S).topics[topic]
        if found.error is not None:
            raise KafkaUnavailable(f"topic {topic} at {where}: {found.error.str()}; `headrace up` creates the topics")
        return {p: _offsets_of(consumer, TopicPartition(topic, p)) for p in sorted(found.partitions)}
    except KafkaException as error:
        raise _unavailable(where, _words(error)) from None


def _offsets_of(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Asked again while a broker that just came back is not yet its partitions' leader, or does not know of them yet: the topic is there,
    it has just been listed."""
    ends = time.monotonic() + REACH_S
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=REACH_S)
        except KafkaException as error:
            first = error.args[0] if error.args else None
            if not (isinstance(first, KafkaError) and first.code() in COMING_BACK) or time.monotonic() > ends:
                raise
            time.sleep(0.1)


def _first(start: Start, partition: int, high: int) -> int:
    if start == "end":
        return high
    return OFFSET_BEGINNING if isinstance(start, str) else start.get(partition, OFFSET_BEGINNING)
