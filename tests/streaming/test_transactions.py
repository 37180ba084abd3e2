"""The transactional writers against librdkafka's own mock of a broker, which knows the calls but keeps no transaction: where they begin,
how much they send. What a real broker makes of it: tests/end_to_end/test_ingest.py."""

import threading
import time

import confluent_kafka
import pytest

from headrace.streaming import transactions
from headrace.streaming.transactions import NotWritten, Part, Writers, committed, group_of, put

GROUP = group_of("shop", 7)


@pytest.fixture
def broker():
    """The address of a mock broker with topics `theirs` and `out`, and what lies in `out`."""
    keeper = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x", "log_level": 0})
    found, = keeper.list_topics(timeout=10).brokers.values()
    for topic in ("theirs", "out"):
        keeper.produce(topic, b"first", partition=1)
    assert keeper.flush(10) == 0
    yield f"{found.host}:{found.port}"
    keeper.flush(1)


def lying(address):
    """How many records lie in `out`."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": "look", "log_level": 0})
    try:
        parts = [confluent_kafka.TopicPartition("out", p) for p in consumer.list_topics("out", timeout=10).topics["out"].partitions]
        return sum(consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts)
    finally:
        consumer.close()


def test_a_group_is_put_once_and_writers_begin_there(broker):
    assert GROUP == "headrace-ingest-shop-00000007" and committed(broker, GROUP, "theirs", [0, 1]) == {}
    put(broker, GROUP, "theirs", {0: 5, 1: 0})
    assert committed(broker, GROUP, "theirs", [0, 1, 2]) == {0: 5, 1: 0}
    writers = Writers(broker, GROUP, "theirs")
    try:
        writers.begin()
        assert [writers.next(partition) for partition in (0, 1, 2)] == [5, 0, 0] and writers.first(1) == 0
    finally:
        writers.close()


def test_each_call_writes_what_it_is_given_and_moves_on(broker):
    writers = Writers(broker, GROUP, "theirs")
    try:
        assert (writers.next(0), writers.next(1)) == (0, 0)
        for n in range(3):
            records = [("out", b"k", b"%d-%d" % (n, m)) for m in range(50)]
            writers.write({0: Part(records, 10 * n + 10), 1: Part([], n + 1)})
            assert (writers.next(0), writers.next(1)) == (10 * n + 10, n + 1)
    finally:
        writers.close()
    assert lying(broker) - 3 in (1 + 3 * 50, 1 + 3 * 50 - 3), "with or without a marker of each transaction"


def test_a_record_that_the_client_refuses_leaves_nothing_written(broker):
    writers = Writers(broker, GROUP, "theirs")
    try:
        writers.next(0)
        with pytest.raises(NotWritten, match="partition 0 of theirs, 1 records"):
            writers.write({0: Part([("out", b"k", bytes(2_000_000))], 1)})
        assert writers.next(0) == 0
    finally:
        writers.close()


def test_nobody_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(transactions, "COMMIT_S", 0.5)
    with pytest.raises(NotWritten, match=r"no transactions at 127.0.0.1:1"):
        Writers("127.0.0.1:1", GROUP, "theirs").next(0)


def test_what_never_returns_is_left_behind():
    began = time.monotonic()
    with pytest.raises(NotWritten, match="within 0 s"):
        transactions._within(0.2, threading.Event().wait)
    assert time.monotonic() - began < 5
    with pytest.raises(KeyError):
        transactions._within(5, lambda: {}["none"])
    transactions._within(5, lambda: None)
