"""Any topic with any duplicates, killed at any step of the disk: the lake is the first record of each (cause, target)."""

import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.lake import manifest
from headrace.lake.known import Known
from headrace.lake.store import Folder
from tests.headrace.lake import worlds


class Killed(BaseException):
    """As a kill: nothing of the writer runs behind it."""


def dying(steps):
    """A folder whose process is killed at its `steps`-th step: a write may leave half of its bytes, a rename has happened or not."""
    left = itertools.count(steps, -1)

    class Dying(Folder):
        def _write(self, path, data):
            if next(left) == 0:
                path.write_bytes(memoryview(data)[: len(data) // 2])
                raise Killed
            super()._write(path, data)
            if next(left) == 0:
                raise Killed

        def _rename(self, fresh, path):
            super()._rename(fresh, path)
            if next(left) == 0:
                raise Killed

        def remove(self, name):
            if next(left) == 0:
                raise Killed
            super().remove(name)

    return Dying


def records(draw):
    """Partitions of samples of few causes, near and far (before the ring), of two targets, over two hours, with repeats that differ."""
    near = st.integers(0, 12)
    far = st.sampled_from([3 * worlds.RING, 3 * worlds.RING + 1, 9 * worlds.RING])
    cause = st.tuples(st.one_of(near, far), st.sampled_from([7, 8]), st.sampled_from(["click", "like"]))
    partitions = []
    for partition in range(2):
        drawn = draw(st.lists(st.tuples(cause, st.booleans(), st.booleans()), max_size=25))
        partitions.append([
            "damaged" if damaged and offset else worlds.sample(at, source=source, target=target, partition=partition, label=float(label),
                                                               note=f"n{number}", ts_ms=worlds.BEGIN_MS + (3_600_000 if at % 2 else 0))
            for number, ((at, source, target), label, damaged) in enumerate(drawn) for offset in [number % 7 == 6]])
    return partitions


@settings(max_examples=60)
@given(st.data())
def test_whatever_comes_twice_and_wherever_it_is_killed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("lake")
    partitions = records(data.draw)
    topic = worlds.ListTopic(*partitions)
    topic.batch = data.draw(st.integers(1, 6))
    for steps in data.draw(st.lists(st.integers(0, 25), max_size=6)):
        visible = data.draw(st.integers(0, 25))  # the topic grows between the lives
        seen = max([0, *(read.stop for one in manifest.load(Folder(folder)) for read in one.offsets)])
        topic.partitions = [one[: max(visible, seen)] for one in partitions]
        try:
            worlds.drain(worlds.writer(folder, topic, store=dying(steps)), topic, commit_every=2)
        except Killed:
            pass
    topic.partitions = partitions
    made = worlds.drain(worlds.writer(folder, topic), topic, commit_every=2)
    total = sum(map(len, partitions))
    if not total:
        assert manifest.load(Folder(folder)) == []
        return
    worlds.is_the_lake_of(folder, *partitions)
    damaged = sum(isinstance(one, str) for records in partitions for one in records)
    assert (made.totals.rows, made.totals.unreadable) == (len(worlds.oracle(*partitions)), damaged)
    assert made.totals.rows + made.totals.duplicates + made.totals.unreadable == total


def test_the_oracle_notices_a_writer_that_knows_nothing(tmp_path, monkeypatch):
    """The control: without what is known restored, a duplicate in a later life comes through."""
    record = worlds.sample(4)
    topic = worlds.ListTopic([record])
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    topic.partitions[0].append(record)
    monkeypatch.setattr(Known, "_restore", lambda self, ring_length: None)
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    with pytest.raises(AssertionError, match="twice"):
        worlds.is_the_lake_of(tmp_path, *topic.partitions)


def test_a_duplicate_of_an_earlier_life_is_known_and_one_from_before_the_ring_is_looked_up(tmp_path):
    far = 5 * worlds.RING
    topic = worlds.ListTopic([worlds.sample(4), worlds.sample(far)])
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    topic.partitions[0] += [worlds.sample(at, note=note) for at, note in ((far, "again"), (4, "again"), (6, ""), (6, "again"))]
    made = worlds.drain(worlds.writer(tmp_path, topic), topic)
    worlds.is_the_lake_of(tmp_path, *topic.partitions)
    assert (made.totals.rows, made.totals.duplicates) == (3, 3) and made.known.looked_up == 3, "4 and twice 6 lie before the ring"


def test_what_waits_for_a_commit_is_all_that_is_kept_beside_the_rings(tmp_path):
    topic = worlds.ListTopic([worlds.sample(n) for n in range(9)])
    made = worlds.writer(tmp_path, topic)
    made.take([topic.read(0, n) for n in range(9)])
    assert sum(len(causes) for _, causes in made.known._since) == made.pending.rows == 9
    made.commit()
    assert made.known._since == [] and (made.pending.rows, made.pending.bytes, made.pending.tables) == (0, 0, [])


def test_only_files_within_the_rings_are_opened_at_the_start(tmp_path, monkeypatch):
    topic = worlds.ListTopic([worlds.sample(4)])
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    topic.partitions[0].append(worlds.sample(9 * worlds.RING))
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    opened, read = [], Known._causes
    monkeypatch.setattr(Known, "_causes", lambda self, file: opened.append(file.rows) or read(self, file))
    worlds.writer(tmp_path, topic)
    assert len(opened) == 1


def test_a_commit_is_due_by_time_rows_and_bytes():
    from headrace.lake.follow import When

    class Writer:
        moved = True
        pending = type("Pending", (), {"rows": 5, "bytes": 500})

    assert not When(10, 6, 501).due(Writer, 9) and When(10, 6, 501).due(Writer, 10)
    assert When(10, 5, 501).due(Writer, 0) and When(10, 6, 500).due(Writer, 0)
    Writer.moved = False
    assert not When(10, 5, 500).due(Writer, 11)


def test_the_loop_commits_while_it_runs_and_at_its_end(tmp_path):
    from headrace.lake.follow import When, follow

    topic, stop, made = worlds.ListTopic([worlds.sample(n) for n in range(10)]), threading.Event(), []
    clock = itertools.count()

    def told(one):
        made.append(one.rows)
        if sum(made) >= 9:
            stop.set()

    topic.batch = 3
    follow(worlds.writer(tmp_path, topic), topic, stop, When(2, 100, 1 << 30), lambda: next(clock), told)
    assert len(made) >= 2 and sum(made) in (9, 10)
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    worlds.is_the_lake_of(tmp_path, *topic.partitions)
