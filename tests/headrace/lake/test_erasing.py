"""Somebody taken out of a lake: every row of theirs from before, no other one, wherever it is killed, and though records come again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.lake import erasing, manifest, reader, rewriting, summary
from headrace.lake.errors import LakeAbsent
from headrace.lake.store import Folder
from tests.headrace.lake import worlds
from tests.headrace.lake.test_compact import files_on_disk, lake_of, named, samples
from tests.headrace.lake.test_exactly_once import Killed, dying

SOURCE = 7
STOPS = {0: 1000, 1: 1000}


def erased(folder, store=Folder, name="u1", stops=STOPS):
    return erasing.erase(store(folder), "user", name, 5, SOURCE, stops)


def test_all_of_a_user_and_nothing_else(tmp_path):
    topic = worlds.ListTopic(samples(12))
    lake_of(tmp_path, topic)
    before = reader.read(tmp_path)
    assert erasing.count(Folder(tmp_path), "user", "u1") == 4 and erasing.count(Folder(tmp_path), "item", "i1") == 3
    made = erased(tmp_path)
    assert made.rows == (12, 8) and erasing.count(Folder(tmp_path), "user", "u1") == 0
    assert reader.read(tmp_path).equals(before.filter([one != "u1" for one in before["user_id"].to_pylist()]))
    assert files_on_disk(tmp_path) == named(tmp_path) and not any(b"u1" in path.read_bytes() for path in tmp_path.rglob("*.json"))
    told = summary.stats(reader.opened(tmp_path))
    assert told["dropped"] == 4 and told["records"] == told["rows"] + told["duplicates"] + told["unreadable"] + told["dropped"]
    rewriting.compact(Folder(tmp_path), open_too=True)
    assert len(reader.read(tmp_path)) == 8


def test_what_comes_again_stays_out_and_what_comes_after_goes_in(tmp_path):
    """A writer that has read their samples and not committed, one that begins anew, a duplicate, and an exposure after the erasure."""
    topic = worlds.ListTopic(samples(6))
    lake_of(tmp_path, topic)
    living = worlds.writer(tmp_path, topic)
    topic.partitions[0] += [worlds.sample(7), worlds.sample(8)]  # u1, u2, read and waiting
    living.take([topic.read(0, 6), topic.read(0, 7)])
    erased(tmp_path)
    living.commit()
    assert erasing.count(Folder(tmp_path), "user", "u1") == 0 and erasing.count(Folder(tmp_path), "user", "u2") == 3
    topic.partitions[0] += [worlds.sample(1), worlds.sample(10), worlds.sample(1000), worlds.sample(1, source=9)]
    made = lake_of(tmp_path, topic)
    held = [row for row in worlds.rows(tmp_path) if row["user_id"] == "u1"]
    assert [(row["source"], row["offset"]) for row in held] == [(9, 1), (7, 1000)], "of a source that came later, and behind the stop"
    assert made.positions == {0: 12} and made.totals.duplicates == 0


def test_a_source_that_the_lake_knew_is_before_the_erasure(tmp_path):
    topic = worlds.ListTopic([worlds.sample(1, source=3), worlds.sample(1), worlds.sample(2)])
    lake_of(tmp_path, topic)
    assert erased(tmp_path, stops={0: 0}).rows == (3, 2), "of topic 7 nothing lies before offset 0"
    assert [row["source"] for row in worlds.rows(tmp_path) if row["user_id"] == "u1"] == [7]


@pytest.mark.parametrize("steps", range(12))
def test_killed_at_each_step_and_asked_again(tmp_path, steps):
    topic = worlds.ListTopic(samples(9))
    lake_of(tmp_path, topic)
    try:
        erased(tmp_path, store=dying(steps))
    except Killed:
        pass
    held = worlds.rows(tmp_path)
    assert len(held) in (6, 9) and sum(row["user_id"] != "u1" for row in held) == 6
    lake_of(tmp_path, topic)
    erased(tmp_path)
    assert len(worlds.rows(tmp_path)) == 6 and files_on_disk(tmp_path) == named(tmp_path)


def test_no_lake(tmp_path):
    with pytest.raises(LakeAbsent):
        erased(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1), st.sampled_from([3, 7])), min_size=1, max_size=20),
       st.integers(0, 20), st.integers(0, 20))
def test_without_is_a_plain_filter(drawn, first, second):
    from headrace.lake.columns import table_of

    records = [worlds.sample(offset, partition=partition, source=source) for offset, partition, source in drawn]
    table = table_of(records, [(0, n, 0) for n in range(len(records))])
    one = erasing.Removal("user", erasing.hash_of("user", "u2"), 1, 7, {0: first, 1: second}, [3])
    kept = erasing.without(table, [one, erasing.Removal("item", erasing.hash_of("item", "nobody"), 1, 7, {}, [])])
    stops = {0: first, 1: second}
    wanted = [r for r in records if not (r["user_id"] == "u2" and (r["source"] == 3 or r["offset"] < stops[r["partition"]]))]
    assert kept["event_id"].to_pylist() == [r["event_id"] for r in wanted]
    assert manifest.FORMAT == 2
