"""Kafka without a broker: every call ends with a sentence within ten seconds. (With one: tests/end_to_end.)"""

import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headrace import kafka
from headrace.ports import any_free
from headrace.schemas.topics import settings


def test_offsets_are_asked_again_while_a_broker_comes_back():
    class Consumer:
        def __init__(self, *codes):
            self.codes = list(codes)

        def get_watermark_offsets(self, partition, timeout):
            if self.codes:
                raise KafkaException(KafkaError(self.codes.pop()))
            return 3, 8

    assert kafka._offsets_of(Consumer(*kafka.COMING_BACK), TopicPartition("samples", 1)) == (3, 8)
    with pytest.raises(KafkaException):
        kafka._offsets_of(Consumer(KafkaError._ALL_BROKERS_DOWN), TopicPartition("samples", 1))


CALLS = {
    "ensure_topics": lambda bootstrap: kafka.ensure_topics(bootstrap, settings(["fm"], 2)),
    "topic_source": lambda bootstrap: kafka.topic_source(bootstrap, "interactions"),
    "watermarks": lambda bootstrap: kafka.watermarks(bootstrap, "interactions"),
    "read": lambda bootstrap: next(kafka.read(bootstrap, "interactions", threading.Event())),
}


@pytest.mark.parametrize("name", CALLS)
def test_nobody_listens(name, monkeypatch):
    monkeypatch.setattr(kafka, "REACH_S", 1.0)
    bootstrap = f"127.0.0.1:{any_free()}"
    with pytest.raises(kafka.KafkaUnavailable, match=f"no Kafka broker answers at {bootstrap}.*headrace status"):
        CALLS[name](bootstrap)


def test_the_wait_for_a_broker_is_below_ten_seconds():
    began = time.monotonic()
    with pytest.raises(kafka.KafkaUnavailable):
        kafka.reach(f"127.0.0.1:{any_free()}")
    assert time.monotonic() - began < 10


def test_what_was_not_delivered_is_raised_and_told_once():
    told = []
    producer = kafka.Producer(f"127.0.0.1:{any_free()}", delivery_timeout_ms=300)
    producer.send("interactions", b"key", b"value", lambda error, _: told.append(error))
    with pytest.raises(kafka.Undelivered, match="1 failed"):
        producer.flush(5)
    assert len(told) == 1 and told[0] is not None
    producer.flush(1)  # the failure was told; nothing else waits


def test_a_full_queue_waits_until_its_deadline():
    producer = kafka.Producer(f"127.0.0.1:{any_free()}", queue_buffering_max_messages=1, delivery_timeout_ms=5000)
    producer.send("interactions", None, b"1")
    began = time.monotonic()
    with pytest.raises(kafka.Undelivered, match="stayed full"):
        producer.send("interactions", None, b"2", deadline_s=0.3)
    assert 0.3 <= time.monotonic() - began < 2
