"""What lies in `enriched` when a worker takes a partition up: the newest event time goes on from it, and nothing is written twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyflink")

from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming import written
from headrace.streaming.written import CLOCKS_MS, Written
from tests.streaming.test_stages import NOW, encoded, event, run, stage

__all__ = ["stage"]  # a fixture of theirs


@pytest.fixture
def topic(monkeypatch):
    """`enriched` of a broker: what is appended since a time, what is last, and since when it was asked."""

    class Topic:
        appended, last, asked = (), (), []

    monkeypatch.setattr(written, "appended", lambda where, name, since_ms: Topic.asked.append(since_ms) or iter(Topic.appended))
    monkeypatch.setattr(written, "latest", lambda where, name, most: iter(Topic.last))
    Topic.asked.clear()
    yield Topic
    Topic.appended = Topic.last = ()


def successor(stage):
    """What another worker of the stage begins with."""
    stage.written = Written("broker", stage.enriched, stage.source)
    return stage


def rows(stage, *events, first_offset=0):
    return [record for _, record in run(stage, encoded(stage, *events), first_offset=first_offset)]


def test_each_record_says_the_newest_time_of_its_partition_so_far(stage):
    events = [event(ts_ms=NOW - 5), event("click", ts_ms=NOW - 9), event(ts_ms=NOW), event("heartbeat", user="", item="", ts_ms=NOW - 2)]
    made = rows(stage, *events)
    assert [one["newest_ms"] - NOW for one in made] == [-5, -5, 0, 0]
    heartbeat, = run(stage, encoded(stage, event("heartbeat", user="", item="", ts_ms=NOW + 9)), first_offset=4, key=b"")
    assert heartbeat[1]["newest_ms"] == NOW + 9, "it moves the watermark on"
    assert rows(stage, event("click", ts_ms=NOW + 1), first_offset=5)[0]["newest_ms"] == NOW + 9


def test_a_successor_goes_on_from_what_lies_there_and_writes_nothing_twice(stage, topic):
    events = [event(ts_ms=NOW + 40), event("click", ts_ms=NOW + 30), event(item="j", ts_ms=NOW + 20), event(item="k", ts_ms=NOW + 45)]
    before = rows(stage, *events[:2])
    topic.appended = [stage.enriched.encode(one) for one in before]
    topic.last = [stage.enriched.encode({**before[0], "source": 8, "newest_ms": NOW + 999}), b"\x01not ours", None]
    folded = stage.features.shard.sequence
    made = rows(successor(stage), *events)
    assert made[:2] == [None, None] and [one["newest_ms"] - NOW for one in made[2:]] == [40, 45]
    assert stage.features.shard.sequence == folded + 2 and stage.features.shard.duplicates == 0
    assert topic.asked == [NOW - CLOCKS_MS]
    rows(stage, event(ts_ms=NOW + 50), first_offset=4)
    assert len(topic.asked) == 1, "a partition is taken up once"


def test_what_was_last_before_a_quiet_time_is_found_too(stage, topic):
    topic.last = [stage.enriched.encode({**rows(stage, event(ts_ms=NOW + 70))[0]})]
    assert rows(successor(stage), event("click", ts_ms=NOW + 10), first_offset=1)[0]["newest_ms"] == NOW + 70


def test_a_batch_that_fails_moves_no_time_on(stage):
    fold, failing = stage.features.freeze_and_fold, [event(item="bad", ts_ms=NOW + 500)]

    def once(causes, columns):
        if len(causes) > 1:
            raise ValueError("a batch")
        return fold(causes, columns)

    stage.features.freeze_and_fold = once
    made = rows(stage, event(ts_ms=NOW), *failing)
    assert [one["newest_ms"] - NOW for one in made] == [0, 500], "work done again in parts is told as in one"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), max_size=40), st.integers(1, 7), st.data())
@settings(max_examples=100, deadline=None)
def test_the_newest_time_is_that_of_the_records_before_however_calls_are_cut(records, size, data):
    codec = Codec("enriched", SchemaStore())
    one, naive = Written(None, codec, 7), {}
    for start in range(0, len(records), size):
        part = records[start : start + size]
        partition, ts_ms = np.array([p for p, _ in part], np.int32), np.array([t for _, t in part], np.int64)
        one.take_up(partition, ts_ms)
        found = one.newest(partition, ts_ms)
        if data.draw(st.booleans()):
            found = one.newest(partition, ts_ms)  # asked again, after a failure
        one.keep(partition, found)
        for (p, t), newest in zip(part, found.tolist(), strict=True):
            naive[p] = max(naive.get(p, 0), t)
            assert newest == naive[p]


def test_offsets_behind_those_that_lie_there_are_lacking_and_holes_too():
    one = Written(None, Codec("enriched", SchemaStore()), 7)
    one._held = {0: {4, 5, 7}, 1: set()}
    partition, offset = np.array([0, 0, 1, 0, 0], np.int32), np.array([4, 6, 4, 7, 8])
    assert one.lacks(partition, offset).tolist() == [False, True, True, False, True]
    assert one.lacks(np.array([0]), np.array([7])).tolist() == [True], "that stretch is over: nothing is kept of it"
