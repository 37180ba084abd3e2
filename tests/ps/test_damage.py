"""Files cut at every 4 KiB, flipped, missing, mixed or not ours: refused, what is before them used, and the operator told."""

import pickle
import shutil

import numpy as np
import pytest

from headrace.ps import log as shard_log
from headrace.ps import snapshot
from tests.ps import worlds

PAGE = 4096


@pytest.fixture
def folder(tmp_path):
    """A shard's folder of two snapshots and a log beyond them, with every kind of state in it; {sequence: digest}."""
    digests, rng, spec = {}, np.random.default_rng(5), worlds.spec(admission="bloom", admit_keys=1, admit_after=2, ttl_s=50)
    with worlds.store(tmp_path / "whole", [spec]) as store:
        for turn in range(12):
            keys = np.unique(rng.integers(0, 1500, 900).astype(np.uint64))
            tables = {"weights": (keys, rng.normal(size=(len(keys), 3)).astype(np.float32)),
                      "counts": (keys, np.ones((len(keys), 1), np.int64))}
            store.shard.push("fm", "click", worlds.causes([turn]), tables)
            digests[store.shard.sequence] = store.shard.digest()
            if turn in (4, 8):
                store.snapshot()
    return tmp_path / "whole", [spec], digests


def newest_of(folder):
    return snapshot.folders(folder / "snapshots")[-1][1]


def hurt(folder, damage, caplog, specs, digest):
    """Do `damage` to the newest snapshot of a copy: the shard comes back whole from the one before and the log, and says why."""
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    damage(newest_of(copy))
    caplog.clear()
    with worlds.store(copy, specs) as store:
        assert store.shard.digest() == digest and "is refused" in caplog.text
    shutil.rmtree(copy)


def test_a_snapshot_cut_anywhere_is_refused_and_the_one_before_is_used(folder, caplog):
    whole, specs, digests = folder
    files = {file.name: file.stat().st_size for file in newest_of(whole).iterdir()}
    cuts = [(name, at) for name, size in files.items() for at in range(0, size, PAGE)]
    assert len(cuts) > 30
    for name, at in cuts:
        hurt(whole, lambda path, name=name, at=at: (path / name).write_bytes((path / name).read_bytes()[:at]), caplog, specs, digests[12])


def test_bits_flipped_anywhere_are_seen(folder):
    """Of every file, spread over it: nothing is read that was not written."""
    whole, _, _ = folder
    for file in newest_of(whole).iterdir():
        data = file.read_bytes()
        for at in np.linspace(0, 8 * len(data) - 1, 40, dtype=int).tolist() if data else []:
            file.write_bytes(data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :])
            with pytest.raises((ValueError, KeyError, TypeError)):
                snapshot.read(newest_of(whole))
        file.write_bytes(data)
    assert snapshot.read(newest_of(whole)).sequence == 9


def test_what_is_not_of_this_snapshot_is_refused(folder, caplog):
    whole, specs, digests = folder
    names = [file.name for file in newest_of(whole).iterdir()]
    before = snapshot.folders(whole / "snapshots")[0][1]

    def of_another(name):
        return lambda path: shutil.copy(before / name, path / name)

    def pickled(name):
        return lambda path: (path / name).write_bytes(pickle.dumps({"keys": [1], "rows": np.zeros(3)}))

    def missing(name):
        return lambda path: (path / name).unlink()

    same = {name for name in names if (before / name).read_bytes() == (newest_of(whole) / name).read_bytes()}
    for name in names:
        for make in ([] if name in same else [of_another]) + [pickled, missing]:
            if make is of_another and name == "manifest.json":
                continue  # with the sha256s of other files: the next line
            hurt(whole, make(name), caplog, specs, digests[12])
    hurt(whole, of_another("manifest.json"), caplog, specs, digests[12])


def test_a_log_cut_anywhere_gives_what_was_whole(folder):
    """The last segment's end is a torn write: all before it is there, and it is said. A cut in one that another follows is refused."""
    whole, specs, digests = folder
    segments = shard_log.segments(whole / "log")
    last = segments[-1][1]
    data = last.read_bytes()
    for at in range(0, len(data), PAGE):
        copy = whole.with_name("copy")
        shutil.copytree(whole, copy)
        (copy / "log" / last.name).write_bytes(data[:at])
        with worlds.store(copy, specs) as store:
            assert 9 <= store.shard.sequence <= 12 and store.shard.digest() == digests[store.shard.sequence]
        shutil.rmtree(copy)
    first = segments[0][1]
    assert len(segments) > 1
    shutil.rmtree(newest_of(whole))
    raw = first.read_bytes()
    for at in range(0, len(raw), PAGE):
        first.write_bytes(raw[:at])
        with pytest.raises(shard_log.LogError), worlds.store(whole, specs):
            pass
