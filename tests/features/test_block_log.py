"""The log of blocks: what was appended is read, whatever a kill, a full disk or a bad sector leaves of it."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import block_log
from headrace.features.block_log import DELETE, DELETE_RANGE, PUT, BlockLog, LogError, Writes

WRITES = st.lists(st.tuples(st.sampled_from([PUT, DELETE, DELETE_RANGE]), st.sampled_from(["meta", "group user x item.author"]),
                            st.binary(max_size=9), st.binary(max_size=40)), max_size=4)
BLOCKS = st.lists(st.tuples(st.lists(st.integers(0, (1 << 64) - 1), max_size=20), WRITES), max_size=12)


def writes_of(listed):
    made = Writes()
    made.all += listed
    return made


def filled(folder, blocks=9, segment_bytes=1 << 20):
    log = BlockLog(folder)
    log.segment_bytes = segment_bytes
    for number in range(1, blocks + 1):
        log.append(number, np.arange(number, dtype=np.uint64), writes_of([(PUT, "meta", b"key", bytes([number]))]))
    return log


def read(folder):
    return [(record.number, record.words.tolist(), record.writes.all) for record in BlockLog(folder).records()]


@given(blocks=BLOCKS, segment_bytes=st.sampled_from([1, 300, 1 << 20]), gone=st.integers(0, 12))
def test_what_was_appended_is_read_but_for_what_was_cut(tmp_path_factory, blocks, segment_bytes, gone):
    folder = tmp_path_factory.mktemp("log")
    log = BlockLog(folder)
    log.segment_bytes = segment_bytes
    sizes = [log.append(number, np.array(words, np.uint64), writes_of(listed)) for number, (words, listed) in enumerate(blocks, 1)]
    assert log.bytes() == sum(sizes)
    wanted = [(number, words, listed) for number, (words, listed) in enumerate(blocks, 1)]
    assert read(folder) == wanted
    log.cut(gone + 1)
    kept, needed = read(folder), [one for one in wanted if one[0] > gone]
    assert kept == wanted[len(wanted) - len(kept) :] and len(kept) >= len(needed)
    log.clear()
    assert read(folder) == [] and list(folder.iterdir()) == []
    log.append(99, np.zeros(0, np.uint64), Writes())
    assert [number for number, *_ in read(folder)] == [99]
    log.close()


def test_a_record_cut_off_anywhere_is_none(tmp_path):
    filled(tmp_path).close()
    [file] = tmp_path.iterdir()
    whole, wanted = file.read_bytes(), read(tmp_path)
    last = len(whole) - 8 * (5 + 9 + 3)  # a frame, nine words, 11 + 4 + 3 + 1 bytes
    for size in range(last, len(whole)):
        file.write_bytes(whole[:size])
        assert read(tmp_path) == wanted[:-1]
    file.write_bytes(whole)
    assert read(tmp_path) == wanted


@pytest.mark.parametrize("at", [0, 8, 16, 24, 32, 40, -1, -40])
def test_a_changed_byte_ends_the_log_at_its_end_and_is_refused_before(tmp_path, at):
    filled(tmp_path, segment_bytes=1).close()
    first, *_, last = sorted(tmp_path.iterdir())
    held = read(tmp_path)
    data = bytearray(last.read_bytes())
    data[at] ^= 64
    last.write_bytes(data)
    assert read(tmp_path) == held[:-1]
    data = bytearray(first.read_bytes())
    data[min(at, 39) if at > 0 else at] ^= 64
    first.write_bytes(data)
    with pytest.raises(LogError, match="damaged at byte 0, and newer segments follow"):
        read(tmp_path)


def test_a_disk_that_is_full_takes_nothing(tmp_path, monkeypatch):
    log, held = filled(tmp_path), read(tmp_path)
    real = os.pwritev

    def part(fd, pieces, at):
        real(fd, [pieces[0][:24]], at)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(block_log.os, "pwritev", part)
        with pytest.raises(OSError, match="No space"):
            log.append(10, np.ones(5, np.uint64), Writes())
    assert read(tmp_path) == held
    monkeypatch.setattr(block_log.os, "pwritev", lambda fd, pieces, at: real(fd, [pieces[0][:24]], at))  # it takes a part at a time
    log.append(10, np.ones(5, np.uint64), Writes())
    assert read(tmp_path) == [*held, (10, [1] * 5, [])]
    log.take_back()
    assert read(tmp_path) == held
    log.close()
