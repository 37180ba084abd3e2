"""Ends of the topic that moved while nobody wrote: gaps, a topic made anew, one that lost records, new partitions, holes."""

import logging

import pytest

from headrace.lake import manifest, summary
from headrace.lake.errors import LakeAhead
from headrace.lake.manifest import Range
from headrace.lake.reader import opened
from headrace.lake.store import Folder
from headrace.lake.writer import lag
from tests.headrace.lake import worlds


def records(count, begin=0):
    return [worlds.sample(n) for n in range(begin, begin + count)]


def test_retention_that_passed_over_unwritten_offsets_is_a_gap(tmp_path, caplog):
    topic = worlds.ListTopic(records(4), [])
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    topic.partitions[0] += records(6, 4)
    topic.low[0] = 7
    with caplog.at_level(logging.ERROR):
        made = worlds.drain(worlds.writer(tmp_path, topic), topic)
    assert "gap: offsets 4 to 6 of partition 0" in caplog.text
    assert [row["at_offset"] for row in worlds.rows(tmp_path)] == [0, 1, 2, 3, 7, 8, 9] and made.totals.gap == 3
    last = manifest.load(Folder(tmp_path))[-1]
    assert last.gaps == [Range(0, 4, 7)] and last.offsets[0] == Range(0, 4, 10)
    told = summary.stats(opened(tmp_path))
    assert told["gap_offsets"] == 3 and told["gaps"] == [{"commit": 2, "partition": 0, "from": 4, "to": 7}]
    assert worlds.writer(tmp_path, topic).totals.gap == 3, "counted once, and remembered"


def test_a_gap_alone_is_committed(tmp_path):
    topic = worlds.ListTopic(records(4))
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    topic.partitions[0] += records(2, 4)
    topic.low[0] = 6
    made = worlds.drain(worlds.writer(tmp_path, topic), topic)
    assert made.totals.gap == 2 and manifest.load(Folder(tmp_path))[-1].offsets == [Range(0, 4, 6)]


def test_a_gap_while_it_runs(tmp_path):
    topic = worlds.ListTopic(records(10))
    made = worlds.writer(tmp_path, topic)
    made.take([topic.read(0, n) for n in range(3)])
    topic.low[0] = 6
    made.take([topic.read(0, n) for n in range(6, 10)])
    assert made.commit().gaps == [Range(0, 3, 6)]


def test_a_hole_is_no_gap(tmp_path):
    """The end of a transaction takes an offset and is no record."""
    topic = worlds.ListTopic(records(5))
    made = worlds.writer(tmp_path, topic)
    made.take([topic.read(0, n) for n in (0, 1, 3, 4)])
    one = made.commit()
    assert one.gaps == [] and one.records == 4 and one.offsets == [Range(0, 0, 5)]


def test_a_new_lake_begins_with_what_the_topic_still_has(tmp_path):
    topic = worlds.ListTopic(records(5), records(3, 50))
    topic.low = [2, 3]
    made = worlds.drain(worlds.writer(tmp_path, topic), topic)
    assert (made.totals.rows, made.totals.gap) == (3, 0)
    assert worlds.writer(tmp_path, topic).pending.gaps == [], "a partition that was empty then had no gap"


def test_a_new_partition_is_read_from_its_beginning(tmp_path):
    topic = worlds.ListTopic(records(5))
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    topic.partitions.append(records(3, 50))
    topic.low.append(1)
    made = worlds.drain(worlds.writer(tmp_path, topic), topic)
    assert (made.totals.rows, made.totals.gap) == (7, 1)


def test_a_topic_made_anew_begins_again_and_its_samples_are_still_known(tmp_path, caplog):
    topic = worlds.ListTopic(records(5))
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    again = worlds.ListTopic([*records(2), *records(2, 9)], topic_id="uuid-2")
    made = worlds.drain(worlds.writer(tmp_path, again), again)
    assert "was made anew" in caplog.text and (made.totals.rows, made.totals.duplicates) == (7, 2)
    assert summary.stats(opened(tmp_path))["topics"] == ["uuid-1", "uuid-2"]


def test_a_topic_that_lost_records_stops_the_writer(tmp_path):
    topic = worlds.ListTopic(records(5))
    made = worlds.drain(worlds.writer(tmp_path, topic), topic)
    with pytest.raises(LakeAhead, match=r"gave offset 2 after 4: the broker has lost records.*lake.dir"):
        made.take([topic.read(0, 2)])
    topic.partitions[0] = records(3)
    with pytest.raises(LakeAhead, match=r"partition 0 of samples ends at 3, and the lake .* has taken it up to 5"):
        worlds.writer(tmp_path, topic)


def test_records_that_are_not_readable_are_counted_and_the_first_is_named(tmp_path):
    odd = worlds.sample(1) | {"feature_keys": b"123"}
    topic = worlds.ListTopic([worlds.sample(0), odd, "bad_magic: the first byte is 7b", worlds.sample(-1), worlds.sample(2, partition=-1)])
    made = worlds.drain(worlds.writer(tmp_path, topic), topic)
    assert (made.totals.rows, made.totals.unreadable) == (1, 4)
    assert manifest.load(Folder(tmp_path))[0].fault == "partition 0 offset 1: feature_keys has 3 bytes, no whole number of uint64"


def test_nothing_read_is_no_commit(tmp_path):
    topic = worlds.ListTopic([])
    assert worlds.writer(tmp_path, topic).commit() is None
    worlds.writer(tmp_path, topic).take([])
    assert manifest.load(Folder(tmp_path)) == []


def test_lag():
    assert lag({0: 5, 1: 9}, {0: (2, 8), 1: (0, 9), 2: (4, 6)}) == 3 + 0 + 2


