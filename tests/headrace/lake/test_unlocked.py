"""A lake in a store without locks: whoever is killed or stands still at any request, and whatever others do meanwhile, each row once."""

import itertools
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.lake import erasing, manifest, reader, rewriting
from headrace.lake.errors import LakeHeld, LakeOvertaken
from tests.headrace.lake import unlocked, worlds
from tests.headrace.lake.test_compact import lake_of, samples
from tests.headrace.lake.test_exactly_once import Killed, records

SOURCE, STOPS = 7, {0: 1000, 1: 1000}
FENCED = (LakeOvertaken, LakeHeld)


@pytest.fixture
def root():
    return unlocked.new_root()


def erased(store):
    return erasing.erase(store, "user", "u1", 5, SOURCE, STOPS)


def compacted(store):
    return rewriting.compact(store, open_too=True)


def nothing_else_lies_there(root):
    store = unlocked.store(root)
    named = {file.path for one in manifest.load(store) for file in one.files}
    assert set(store.names("samples")) == named
    assert len(store.names("bases")) <= 1


def lake_begun(first, more):
    """A root whose lake holds `first`, and its topic, which holds `more` too."""
    root, topic = unlocked.new_root(), worlds.ListTopic(first, [*samples(3, begin=100), *samples(2, begin=101)])
    lake_of(unlocked.store(root), topic)
    topic.partitions[0] += more
    return root, topic


@pytest.mark.parametrize("first", [0, 4])
def test_a_writer_killed_at_each_request(first):
    """And the next one too, somewhere: the one behind them writes what is missing."""
    for steps in itertools.count():
        root, topic = lake_begun(samples(first), samples(4, begin=first))
        try:
            lake_of(unlocked.dying(root, steps), topic)
            break
        except Killed:
            pass
        with suppress(Killed):
            lake_of(unlocked.dying(root, 7 * steps % 20), topic)
        lake_of(unlocked.store(root), topic)
        worlds.is_the_lake_of(unlocked.store(root), *topic.partitions)
        nothing_else_lies_there(root)
    assert steps > 10, "a commit and the start before it are so many requests"


@pytest.mark.parametrize("compact_too", [False, True])
def test_a_writer_that_stands_still_at_any_request_and_comes_back(compact_too):
    """Another writer commits the same offsets meanwhile, and is rewritten, so that the manifest which the first would make is removed."""
    for steps in itertools.count():
        root, topic = lake_begun(samples(4), samples(3, begin=4))
        first = unlocked.Paused(root, steps, lambda store, topic=topic: lake_of(store, topic).commit())
        if first.ended:
            break
        lake_of(unlocked.store(root), topic)
        topic.partitions[0] += samples(3, begin=6)
        lake_of(unlocked.store(root), topic)
        if compact_too:
            compacted(unlocked.store(root))
        error = first.go_on()
        assert error is None or isinstance(error, FENCED), error
        worlds.is_the_lake_of(unlocked.store(root), *topic.partitions)
        topic.partitions[0] += samples(3, begin=9)
        lake_of(unlocked.store(root), topic)
        worlds.is_the_lake_of(unlocked.store(root), *topic.partitions)
        compacted(unlocked.store(root))
        nothing_else_lies_there(root)
    assert steps > 10


def test_the_first_of_two_writers_may_win():
    """The second begins while the first stands still, and stands still itself until that has committed."""
    for steps in itertools.count():
        root, topic = lake_begun(samples(4), samples(3, begin=4))
        with pytest.raises(Killed):  # so that the second has something to remove, at the number which the first takes
            worlds.drain(worlds.writer(unlocked.dying(root, 8), topic), topic)
        second = unlocked.Paused(root, steps, lambda store, topic=topic: lake_of(store, topic).commit())
        if second.ended:
            break
        lake_of(unlocked.store(root), topic)
        error = second.go_on()
        assert error is None or isinstance(error, FENCED), error
        worlds.is_the_lake_of(unlocked.store(root), *topic.partitions)
    assert steps > 10


@pytest.mark.parametrize("work", [compacted, erased])
def test_a_rewriting_killed_at_each_request(work):
    """A reader sees it before or after; the next rewriting ends it, and leaves nothing of it."""
    for steps in itertools.count():
        root, topic = unlocked.new_root(), worlds.ListTopic(samples(6))
        lake_of(unlocked.store(root), topic)
        try:
            work(unlocked.dying(root, steps))
            break
        except Killed:
            pass
        assert len(reader.read(unlocked.store(root))) in ((4, 6) if work is erased else (6,))
        lake_of(unlocked.store(root), topic)
        rewriting.expire(unlocked.store(root), 0)  # which has nothing to do but this
        nothing_else_lies_there(root)
        work(unlocked.store(root))
        if work is compacted:
            worlds.is_the_lake_of(unlocked.store(root), *topic.partitions)
        assert len(reader.read(unlocked.store(root))) == (4 if work is erased else 6)
        nothing_else_lies_there(root)
    assert steps > 10


@pytest.mark.parametrize("work", [compacted, erased])
def test_a_rewriting_that_stands_still_and_comes_back(work):
    """Another rewriting and a writer go on meanwhile; either counts, and nothing that a manifest names is removed."""
    for steps in itertools.count():
        root = unlocked.new_root()
        topic = worlds.ListTopic(samples(9))
        lake_of(unlocked.store(root), topic)
        first = unlocked.Paused(root, steps, work)
        if first.ended:
            break
        topic.partitions[0] += samples(3, begin=9)  # u0, u1, u2
        lake_of(unlocked.store(root), topic)
        compacted(unlocked.store(root))
        topic.partitions[0] += samples(3, begin=12)
        lake_of(unlocked.store(root), topic)
        error = first.go_on()
        assert error is None or isinstance(error, LakeHeld), error
        lake_of(unlocked.store(root), topic)
        if work is erased:
            if error is not None:
                erased(unlocked.store(root))
            left = worlds.rows(unlocked.store(root))
            assert not [row for row in left if row["user_id"] == "u1" and row["offset"] < 9]
            erased(unlocked.store(root))
            assert len(worlds.rows(unlocked.store(root))) == 10
        else:
            worlds.is_the_lake_of(unlocked.store(root), *topic.partitions)
        compacted(unlocked.store(root))
        nothing_else_lies_there(root)
    assert steps > 10


def test_a_commit_that_an_erasure_meets_at_any_request():
    """A commit whose rows hold who is erased: it is before, and rewritten, or is not made, and its writer begins again and knows."""
    for steps in itertools.count():
        root = unlocked.new_root()
        topic = worlds.ListTopic(samples(6))
        lake_of(unlocked.store(root), topic)
        topic.partitions[0] += samples(6, begin=6)
        commit = unlocked.Paused(root, steps, lambda store, topic=topic: lake_of(store, topic).commit())
        if commit.ended:
            break
        erased(unlocked.store(root))
        error = commit.go_on()
        assert error is None or isinstance(error, LakeOvertaken), error
        lake_of(unlocked.store(root), topic)
        assert len(worlds.rows(unlocked.store(root))) == 8 and erasing.count(unlocked.store(root), "user", "u1") == 0
    assert steps > 10


def test_a_commit_that_another_made_and_a_rewriting_removed():
    """There is no manifest of this number any more, and it is not to be made again: what follows would not begin where the lake ends."""
    root, topic = lake_begun(samples(4), samples(3, begin=4))
    late = worlds.writer(unlocked.store(root), topic)
    late.take([topic.read(0, n) for n in range(4, 7)])
    lake_of(unlocked.store(root), topic)
    compacted(unlocked.store(root))
    with pytest.raises(LakeOvertaken, match="was made by another before"):
        late.commit()
    lake_of(unlocked.store(root), topic)
    worlds.is_the_lake_of(unlocked.store(root), *topic.partitions)


def test_an_erasure_before_the_first_commit(root):
    topic = worlds.ListTopic(samples(6))
    topic.low[0] = 2
    began = unlocked.store(root)
    with began.held():
        living = worlds.writer(began, topic)
        living.take([topic.read(0, n) for n in range(2, 6)])
        erased(unlocked.store(root))
        with pytest.raises(LakeOvertaken):
            living.commit()
    made = lake_of(unlocked.store(root), topic)
    assert made.totals.gap == 0, "what lay before the first commit is no gap"
    assert [row["user_id"] for row in worlds.rows(unlocked.store(root))] == ["u2", "u0", "u2"]
    compacted(unlocked.store(root))
    assert [one.topics for one in manifest.load(unlocked.store(root))] == [["uuid-1"]]


@settings(max_examples=40)
@given(st.data())
def test_writers_and_rewritings_in_any_order_some_killed(data):
    root, draw = unlocked.new_root(), data.draw
    partitions = records(draw)
    topic = worlds.ListTopic(*partitions)
    living, shown = [worlds.writer(unlocked.store(root), topic)], 0
    while shown < max(map(len, partitions)) or not living:
        shown += draw(st.integers(1, 8))
        topic.partitions = [one[:shown] for one in partitions]
        match draw(st.sampled_from(["commit", "commit", "killed", "another", "compact", "cut off"])):
            case "commit":
                one = draw(st.sampled_from(living))
                try:
                    worlds.drain(one, topic)
                except FENCED:
                    living.remove(one)
                    living.append(worlds.writer(unlocked.store(root), topic))
            case "killed":
                try:
                    lake_of(unlocked.dying(root, draw(st.integers(0, 20))), topic)
                except Killed:
                    pass
            case "another":
                living.append(worlds.writer(unlocked.store(root), topic))
            case "compact" if manifest.load(unlocked.store(root)):
                compacted(unlocked.store(root))
            case "cut off" if manifest.load(unlocked.store(root)):
                try:
                    compacted(unlocked.dying(root, draw(st.integers(0, 20))))
                except Killed:
                    pass
    topic.partitions = partitions
    lake_of(unlocked.store(root), topic)
    if any(partitions):
        worlds.is_the_lake_of(unlocked.store(root), *partitions)
