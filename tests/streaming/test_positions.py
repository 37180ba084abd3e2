"""How far a stage came, over a broker's consumer in this process: what is safe when, and what is read again."""

from types import SimpleNamespace

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headrace.streaming import positions
from headrace.streaming.positions import Positions, Standing, Unread

STANDING = Standing("group", "topic", "into", behind=4)


class Broker:
    """The topic's records by partition and offset, what the group holds, and a consumer of both."""

    def __init__(self, records=None):
        self.records, self.held, self.waited, self.at = records or {}, {}, [], None
        self.failing = False

    def committed(self, places, timeout):
        if self.failing:
            raise KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        return [TopicPartition("topic", one.partition, self.held.get(one.partition, -1001)) for one in places]

    def commit(self, offsets, asynchronous):
        self.waited.append(asynchronous)
        self.held |= {one.partition: one.offset for one in offsets}

    def assign(self, places):
        self.at = places[0]

    def unassign(self):
        self.at = None

    def consume(self, count, timeout):
        found = [Record(self.at.partition, offset, value) for offset, value in sorted(self.records.get(self.at.partition, {}).items())
                 if offset >= self.at.offset][:count]
        if found:
            self.at = TopicPartition("topic", self.at.partition, found[-1].offset() + 1)
        return found

    def position(self, places):
        return [self.at]

    def close(self):
        pass


class Record:
    def __init__(self, partition, offset, value):
        self._partition, self._offset, self._value = partition, offset, value

    def offset(self):
        return self._offset

    def partition(self):
        return self._partition

    def value(self):
        return self._value

    def key(self):
        return b"k"

    def timestamp(self):
        return 1, 99

    def error(self):
        return None


@pytest.fixture
def broker(monkeypatch):
    made = Broker({0: {offset: b"%d" % offset for offset in range(100)}, 1: {offset: b"x" for offset in (0, 1, 5, 6, 9)}})
    monkeypatch.setattr(positions, "member", lambda where, group: made)
    return made


def at(partition, *offsets):
    return np.full(len(offsets), partition), np.array(offsets)


def missed(stands, *places):
    partition, offset = (np.concatenate(one) for one in zip(*places, strict=True))
    return [(one.partition, one.offset) for batch in stands.missed(partition, offset) for one in batch]


def worked(stands, *offsets, partition=0):
    assert missed(stands, at(partition, *offsets)) == []
    stands.passed(*at(partition, *offsets))


def test_where_it_first_begins_is_kept_before_any_work(broker):
    assert missed(Positions("", STANDING), at(0, 7, 8), at(1, 5)) == []
    assert broker.held == {0: 7, 1: 5} and broker.waited == [False]


def test_a_call_is_safe_once_a_bundle_of_rows_has_followed(broker):
    stands = Positions("", STANDING, every_s=0)
    worked(stands, 0, 1)
    worked(stands, 2, 3, 4)
    assert broker.held == {0: 0}
    worked(stands, 5)
    assert broker.held == {0: 2}
    worked(stands, 6, 7, 8)
    assert broker.held == {0: 5} and broker.waited == [False, True, True]
    worked(stands, 5, partition=1)
    assert broker.held == {0: 6, 1: 5}


def test_what_was_passed_over_is_read_and_no_more(broker):
    broker.held = {0: 10, 1: 1}
    assert missed(Positions("", STANDING), at(0, 13, 14), at(1, 8)) == [(0, 10), (0, 11), (0, 12), (1, 1), (1, 5), (1, 6)]


def test_who_begins_where_it_stood_or_before_reads_nothing_again(broker):
    broker.held = {0: 10, 1: 9}
    stands = Positions("", STANDING)
    assert missed(stands, at(0, 10), at(1, 0)) == []
    assert missed(stands, at(0, 50), at(1, 9)) == [], "each partition is asked about once"


def test_who_is_closed_in_peace_leaves_nothing_to_read_again(broker):
    stands = Positions("", STANDING)
    worked(stands, 0, 1, 2)
    worked(stands, 3)
    stands.close()
    assert broker.held == {0: 4} and broker.waited == [False, False]
    assert missed(Positions("", STANDING), at(0, 4)) == []


def test_who_is_closed_after_a_work_that_failed_leaves_what_was_safe(broker):
    stands = Positions("", STANDING)
    worked(stands, 0, 1, 2)
    assert missed(stands, at(0, 3)) == []  # and the work on it raises
    stands.close()
    assert broker.held == {0: 0}


def test_many_come_in_batches(broker, monkeypatch):
    monkeypatch.setattr(positions, "ROWS", 16)
    broker.held = {0: 2}
    batches = list(Positions("", STANDING).missed(*at(0, 90)))
    assert [len(one) for one in batches] == [16] * 5 + [8] and [one.offset for batch in batches for one in batch] == list(range(2, 90))


def test_a_work_that_fails_on_what_was_missed_is_asked_again(broker):
    broker.held = {0: 10}
    stands = Positions("", STANDING)
    next(stands.missed(*at(0, 13)))  # and the work on it raises
    assert missed(stands, at(0, 13)) == [(0, 10), (0, 11), (0, 12)]


def test_a_broker_that_is_away_stops_the_job(broker, monkeypatch):
    monkeypatch.setattr(positions, "READ_S", 0.0)
    broker.failing = True
    with pytest.raises(Unread, match="group at"):
        missed(Positions("", STANDING), at(0, 1))
    broker.failing, broker.held, broker.records = False, {0: 0}, {}
    with pytest.raises(Unread, match="from 0 to 3: nothing came"):
        missed(Positions("", STANDING), at(0, 3))


class Many(Broker):
    """A consumer of all partitions of a topic at once, whose clock is the offset."""

    def list_topics(self, topic, timeout):
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=dict.fromkeys(self.records))})

    def get_watermark_offsets(self, place, timeout):
        held = self.records[place.partition]
        return min(held, default=0), max(held, default=-1) + 1

    def offsets_for_times(self, places, timeout):
        return [TopicPartition("topic", one.partition, min((o for o in self.records[one.partition] if o >= one.offset), default=-1))
                for one in places]

    def assign(self, places):
        self.places = {one.partition: one.offset for one in places}

    def consume(self, count, timeout):
        found = [Record(p, o, value) for p, at in self.places.items() for o, value in sorted(self.records[p].items()) if o >= at][:count]
        for one in found:
            self.places[one.partition()] = one.offset() + 1
        return found

    def position(self, places):
        return [TopicPartition("topic", one.partition, self.places[one.partition]) for one in places]


@pytest.mark.parametrize("read", [1, 3, 1000])
def test_what_is_last_and_what_was_appended_since(monkeypatch, read):
    made = Many({0: {offset: b"%d" % offset for offset in range(5, 9)}, 1: {}, 2: {3: b"x"}})
    monkeypatch.setattr(positions, "member", lambda where, group: made)
    monkeypatch.setattr(positions, "ROWS", read)
    assert sorted(positions.latest("", "topic", 2)) == [b"7", b"8", b"x"]
    assert sorted(positions.latest("", "topic", 100)) == [b"5", b"6", b"7", b"8", b"x"]
    assert sorted(positions.appended("", "topic", 6)) == [b"6", b"7", b"8"]
    assert sorted(positions.appended("", "topic", 3, most=2)) == [b"5", b"6", b"x"]
    assert list(positions.appended("", "topic", 9)) == []
