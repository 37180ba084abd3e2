"""The stack itself: every process ready, Kafka's side of headrace.kafka, kills survived."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from headrace import kafka
from headrace.ports import answers
from headrace.schemas.topics import Topic, settings


def status(stack) -> dict[str, dict]:
    done = subprocess.run([sys.executable, "-m", "headrace", "status", "--json", "--data", str(stack.stack.data_dir)],
                          capture_output=True, text=True, check=True)
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_every_process_is_ready(stack):
    rows = status(stack)
    assert set(rows) == {"supervisor", "kafka", "registry", "ps-0", "ps-1", "features", "ann", "replica", "engine", "flink-jobmanager",
                         "flink-taskmanager"}
    assert {row["state"] for row in rows.values()} == {"ready"}
    # Not at rest: the other tests of this folder have run on it, and the TaskManager's heap has grown. The demo prints what rest takes.
    # An hour's stream took 4,941 MB (docs/figures.md).
    assert sum(row["memory_mb"] for row in rows.values()) < 5400
    assert all(answers(row["address"]) for row in rows.values() if row["address"])


def test_topics_are_as_the_table_says(stack):
    wanted = settings([stack.model.name], stack.kafka.partitions)
    assert kafka.ensure_topics(stack.kafka.bootstrap, wanted) == []
    for topic in wanted:
        assert len(kafka.watermarks(stack.kafka.bootstrap, topic.name)) == topic.partitions


def test_another_number_of_partitions_is_refused(stack):
    with pytest.raises(kafka.TopicMismatch, match="labels has 4 partitions and 5"):
        kafka.ensure_topics(stack.kafka.bootstrap, [Topic("labels", "labels", partitions=stack.kafka.partitions + 1)])


def test_what_is_sent_is_read_in_order_from_where_one_says(stack):
    bootstrap = stack.kafka.bootstrap
    kafka.ensure_topics(bootstrap, [Topic("test-read", "labels", partitions=2)])
    producer = kafka.Producer(bootstrap)
    for n in range(100):
        producer.send("test-read", str(n % 7).encode(), str(n).encode())
    producer.flush()
    marks = kafka.watermarks(bootstrap, "test-read")
    assert sum(high - low for low, high in marks.values()) == 100
    found = take(bootstrap, "test-read", 100)
    for partition in marks:
        values = [int(record.value) for record in found if record.partition == partition]
        assert values == sorted(values)
    start = {partition: high - 1 for partition, (_, high) in marks.items()}
    assert [record.offset for record in sorted(take(bootstrap, "test-read", 2, start))] == [start[0], start[1]]


def test_the_end_is_what_comes_after(stack):
    bootstrap = stack.kafka.bootstrap
    kafka.ensure_topics(bootstrap, [Topic("test-end", "labels", partitions=1)])
    producer = kafka.Producer(bootstrap)
    producer.send("test-end", None, b"before")
    producer.flush()
    stop = threading.Event()
    batches = kafka.read_batches(bootstrap, "test-end", stop, "end")
    next(batches)
    producer.send("test-end", None, b"after")
    producer.flush()
    assert next(batch for batch in batches if batch)[0].value == b"after"
    batches.close()


def test_a_topic_made_anew_is_another_source(stack):
    bootstrap = stack.kafka.bootstrap
    assert kafka.topic_source(bootstrap, "interactions") == kafka.topic_source(bootstrap, "interactions")
    assert kafka.topic_source(bootstrap, "interactions") != kafka.topic_source(bootstrap, "samples")


@pytest.mark.parametrize("name", ["flink-taskmanager", "kafka", "registry"])
def test_a_process_killed_comes_back(stack, name):
    before = status(stack)[name]
    os.kill(before["pid"], signal.SIGKILL)
    ends = time.monotonic() + 60
    while True:
        row = status(stack)[name]
        if row["restarts"] > before["restarts"] and row["state"] == "ready":
            break
        assert time.monotonic() < ends, row
        time.sleep(0.2)
    assert row["pid"] != before["pid"]


def take(bootstrap, topic, count, start="earliest"):
    found = []
    for record in kafka.read(bootstrap, topic, threading.Event(), start):
        found.append(record)
        if len(found) == count:
            return found
    raise AssertionError("the reader ended by itself")
