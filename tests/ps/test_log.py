import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from headrace.ps import log as shard_log
from headrace.ps.log import Log, LogError, read, segments


def write(folder, count, first=1):
    held = Log(folder, first)
    for sequence in range(first, first + count):
        held.append(sequence, {"n": sequence}, {"a": np.arange(sequence, dtype=np.int64), "b.c": np.ones((2, 0), np.float32)})
    return held


def test_what_is_read_is_what_was_written(tmp_path):
    write(tmp_path, 5).close()
    records = list(read(tmp_path, 0))
    assert [r.sequence for r in records] == [1, 2, 3, 4, 5]
    assert records[2].header == {"n": 3}
    assert records[2].arrays["a"].tolist() == [0, 1, 2]
    assert records[2].arrays["b.c"].shape == (2, 0)
    assert [r.sequence for r in read(tmp_path, 3)] == [4, 5]
    assert list(read(tmp_path, 5)) == []


def test_a_torn_tail_is_cut_at_every_byte(tmp_path, caplog):
    write(tmp_path, 2).close()
    path = segments(tmp_path)[0][1]
    two = path.read_bytes()
    write(tmp_path, 1, 3).close()
    three = path.read_bytes()
    for cut in range(len(two) + 1, len(three)):
        path.write_bytes(three[:cut])
        caplog.clear()
        assert [r.sequence for r in read(tmp_path, 0)] == [1, 2]
        assert "torn tail" in caplog.text
        assert path.read_bytes() == two
    write(tmp_path, 1, 3).close()
    assert len(list(read(tmp_path, 0))) == 3


def test_damage_in_the_middle_is_refused_at_every_byte(tmp_path):
    write(tmp_path, 3).close()
    path = segments(tmp_path)[0][1]
    whole = path.read_bytes()
    last = whole.rindex(shard_log.MAGIC)
    for at in range(last):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with pytest.raises(LogError):
            list(read(tmp_path, 0))
        assert path.stat().st_size == len(whole)


def test_segments_rotate_and_are_pruned(tmp_path):
    held = write(tmp_path, 2)
    held.rotate(3)
    held.rotate(3)
    for sequence in (3, 4):
        held.append(sequence, {}, {})
    held.rotate(5)
    assert [first for first, _ in segments(tmp_path)] == [1, 3, 5]
    assert [r.sequence for r in read(tmp_path, 0)] == [1, 2, 3, 4]
    held.prune(2)
    assert [first for first, _ in segments(tmp_path)] == [3, 5]
    assert [r.sequence for r in read(tmp_path, 2)] == [3, 4]
    with pytest.raises(LogError, match="missing"):
        list(read(tmp_path, 0))
    held.close()


def test_a_missing_or_cut_segment_in_the_middle_is_refused(tmp_path):
    held = write(tmp_path, 2)
    held.rotate(3)
    held.append(3, {}, {})
    held.close()
    path = segments(tmp_path)[0][1]
    whole = path.read_bytes()
    for size in (len(whole) - 1, whole.rindex(shard_log.MAGIC), 0):
        path.write_bytes(whole[:size])
        with pytest.raises(LogError):
            list(read(tmp_path, 0))


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    held = write(tmp_path, 2)
    size = held.size_bytes
    real = os.writev

    def short(fd, pieces):
        return real(fd, [bytes(pieces[0])[:9]])

    def full(fd, piece):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", short)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="space"):
        held.append(3, {}, {})
    monkeypatch.undo()
    assert held.size_bytes == size
    held.append(3, {}, {})
    held.close()
    assert len(list(read(tmp_path, 0))) == 3


def test_a_record_that_cannot_be_cut_off_stops_the_log(tmp_path, monkeypatch):
    held = write(tmp_path, 1)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "writev", fail)
    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(OSError):
        held.append(2, {}, {})
    monkeypatch.undo()
    for call in (lambda: held.append(2, {}, {}), lambda: held.rotate(2)):
        with pytest.raises(OSError, match="restart"):
            call()
    held.close()


def test_who_waits_for_the_disk_is_answered_by_one_sync(tmp_path, monkeypatch):
    held, synced, begun, go = write(tmp_path, 1), [], threading.Event(), threading.Event()

    def sync(fd):
        synced.append(held._appended)
        begun.set()
        assert go.wait(30)

    monkeypatch.setattr(os, "fdatasync", sync)
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(held.commit, 1)
        assert begun.wait(30)
        for sequence in range(2, 10):
            held.append(sequence, {}, {})
        others = [threads.submit(held.commit, sequence) for sequence in range(2, 10)]
        assert not first.done() and not any(one.done() for one in others)
        go.set()
        for one in (first, *others):
            one.result(30)
    assert synced == [1, 9]
    held.commit(9)
    assert synced == [1, 9]
    held.append(10, {}, {})
    held.durable = True
    held.rotate(11)
    held.commit(10)
    assert synced == [1, 9, 10]
    held.append(11, {}, {})
    held.durable = False
    held.rotate(12)
    assert synced == [1, 9, 10], "where nobody commits, a new segment waits for no disk"


def test_what_was_there_before_is_synced_before_it_is_called_safe(tmp_path, monkeypatch):
    write(tmp_path, 3).close()
    synced, held = [], Log(tmp_path, 4)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    held.commit(3)
    assert len(synced) == 1


@pytest.mark.parametrize("first", ["commit", "rotate"])
def test_a_disk_that_fails_to_sync_is_not_trusted_again(tmp_path, monkeypatch, first):
    held = write(tmp_path, 1)
    held.durable = True

    def fail(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"):
        held.commit(1) if first == "commit" else held.rotate(2)
    monkeypatch.undo()
    for call in (lambda: held.commit(1), lambda: held.append(2, {}, {}), lambda: held.rotate(2)):
        with pytest.raises(OSError, match="could not be synced"):
            call()
