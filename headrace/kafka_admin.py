"""What a broker says of topics and groups beside their records: settings, ages, who has read how far; and the removal of records.

One of two importers of confluent_kafka here (kafka.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from headrace.kafka import REACH_S, Where, settings
from headrace.kafka_types import KafkaUnavailable

HEAR_S = 3.0  # a partition that gives no record for so long has none that may be read
Offsets = dict[str, dict[int, int]]


def topic_settings(where: Where, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    """topic -> Kafka's settings of it, defaults too. Raises KafkaUnavailable."""
    admin = AdminClient(settings(where))
    asked = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name) for name in topics], request_timeout=REACH_S)
    try:
        return {resource.name: {key: str(entry.value) for key, entry in found.result(REACH_S).items()} for resource, found in asked.items()}
    except KafkaException as error:
        raise KafkaUnavailable(f"the settings of topics at {where} cannot be asked: {error}") from None


def groups(where: Where) -> dict[str, Offsets]:
    """consumer group -> topic -> partition -> the offset that it reads next, as it committed last. Raises KafkaUnavailable."""
    admin, found = AdminClient(settings(where)), dict[str, Offsets]()
    try:
        for group in admin.list_consumer_groups(request_timeout=REACH_S).result(REACH_S).valid:
            asked: Any = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group.group_id)], request_timeout=REACH_S)
            offsets = found.setdefault(group.group_id, {})
            for one in asked[group.group_id].result(REACH_S).topic_partitions:
                if one.offset >= 0:
                    offsets.setdefault(one.topic, {})[one.partition] = one.offset
    except KafkaException as error:
        raise KafkaUnavailable(f"the consumer groups at {where} cannot be asked: {error}") from None
    return found


def ends_ms(where: Where, topic: str, marks: Mapping[int, tuple[int, int]]) -> tuple[int | None, int | None]:
    """Append times of the oldest and the newest record of a topic, whose partitions hold what `marks` says; None where it is empty."""
    held = {p: span for p, span in marks.items() if span[1] > span[0]}
    return (min(_times(where, topic, {p: low for p, (low, _) in held.items()}).values(), default=None),
            max(_times(where, topic, {p: max(low, high - 2) for p, (low, high) in held.items()}).values(), default=None))


def _times(where: Where, topic: str, at: Mapping[int, int]) -> dict[int, int]:
    """partition -> append time of the last record heard at or next after `at`, which may hold the mark of a transaction."""
    found: dict[int, int] = {}
    if not at:
        return found
    consumer = Consumer(settings(where, **{"group.id": "headrace-unused", "enable.auto.commit": False, "isolation.level": "read_committed",
                                           "fetch.wait.max.ms": 50}))
    try:
        consumer.assign([TopicPartition(topic, p, offset) for p, offset in at.items()])
        until = time.monotonic() + HEAR_S
        while len(found) < len(at) and time.monotonic() < until:
            came: list[Any] = consumer.consume(64, 0.1)
            for message in came:
                if message.error() is None:
                    found.setdefault(message.partition(), message.timestamp()[1])
    finally:
        consumer.close()
    return found


def remove_before(where: Where, topic: str, before: Mapping[int, int]) -> None:
    """Have the broker give no record of a partition before an offset, from now on; it frees the disk in its own time. Raises
    KafkaUnavailable."""
    admin = AdminClient(settings(where))
    try:
        for done in admin.delete_records([TopicPartition(topic, p, offset) for p, offset in before.items()]).values():
            done.result(REACH_S)
    except KafkaException as error:
        raise KafkaUnavailable(f"records of {topic} at {where} could not be removed: {error}") from None
