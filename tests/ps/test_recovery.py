import shutil
import subprocess
import sys
from itertools import count

import numpy as np
import pytest

from headrace.ps import snapshot
from headrace.ps.log import LogError, segments
from headrace.ps.recovery import Store
from headrace.ps.snapshot import SnapshotError
from headrace.ps.spec import SpecError
from headrace.rpc.causes import APPLIED, NEW, OLD
from headrace.rpc.errors import TooOld
from tests.ps import worlds


def push_some(store, rng, start, pushes):
    for i in range(start, start + pushes):
        store.shard.push("fm", "click", worlds.causes([2 * i, 2 * i + 1]), worlds.push_of(rng))


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "ftrl"])
@pytest.mark.parametrize("snapshots_at", [(), (10,), (5, 10), (3, 6, 9, 30)])
def test_snapshot_and_log_give_the_same_bytes(tmp_path, optimizer, snapshots_at):
    rng, specs = np.random.default_rng(3), [worlds.spec(optimizer=optimizer)]
    with worlds.store(tmp_path, specs) as store:
        for i in range(30):
            push_some(store, rng, i, 1)
            if i + 1 in snapshots_at:
                store.snapshot()
        digest, sequence = store.shard.digest(), store.shard.sequence
    for _ in range(2):
        with worlds.store(tmp_path, specs) as store:
            assert (store.shard.digest(), store.shard.sequence) == (digest, sequence)
    assert len(snapshot.folders(tmp_path / "snapshots")) == min(len(snapshots_at), 2)


def test_a_process_killed_in_the_middle_leaves_the_acknowledged(tmp_path):
    """kill -9 of a process that prints the digest after each push: what comes back is the last one printed, or one push later."""
    script = ("import sys, numpy as np\nfrom tests.ps import worlds\nrng = np.random.default_rng(3)\n"
              "with worlds.store(sys.argv[1]) as store:\n"
              "    for i in range(100000):\n"
              "        store.shard.push('fm', 'click', worlds.causes([i]), worlds.push_of(rng))\n"
              "        if i % 40 == 17: store.snapshot_aside()\n"
              "        print(store.shard.sequence, store.shard.digest(), flush=True)\n")
    for kills in range(3):
        folder = tmp_path / str(kills)
        child = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
        digests = {}
        for line in child.stdout:
            sequence, digest = line.split()
            digests[int(sequence)] = digest
            if int(sequence) == 60 + 45 * kills:
                child.kill()
                break
        for line in child.stdout:
            if line.endswith("\n"):
                digests[int(line.split()[0])] = line.split()[1]
        child.wait()
        child.stdout.close()
        with worlds.store(folder) as store:
            assert store.shard.sequence in (max(digests), max(digests) + 1)
            if store.shard.sequence in digests:
                assert store.shard.digest() == digests[store.shard.sequence]


def test_a_broken_snapshot_is_refused_and_the_previous_is_used(tmp_path, caplog):
    rng, whole = np.random.default_rng(3), tmp_path / "whole"
    with worlds.store(whole) as store:
        for i in range(3):
            push_some(store, rng, 5 * i, 5)
            store.snapshot()
        push_some(store, rng, 15, 5)
        digest = store.shard.digest()
    newest = snapshot.folders(whole / "snapshots")[-1][1]
    for n, file in enumerate(sorted(newest.iterdir())):
        data = file.read_bytes()
        half = len(data) // 2
        wrong = (data[:half], data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :], None) if data else (b"x", None)
        for kind, damage in enumerate(wrong):
            folder = tmp_path / f"{n}-{kind}"
            shutil.copytree(whole, folder)
            hurt = folder / "snapshots" / newest.name / file.name
            hurt.write_bytes(damage) if damage is not None else hurt.unlink()
            caplog.clear()
            with worlds.store(folder) as store:
                assert store.shard.digest() == digest
                assert "is refused" in caplog.text
                store.snapshot()
            with worlds.store(folder) as store:
                assert store.shard.digest() == digest
            shutil.rmtree(folder)


def test_all_snapshots_broken(tmp_path):
    rng = np.random.default_rng(3)
    with worlds.store(tmp_path) as store:
        push_some(store, rng, 0, 3)
        store.snapshot()
        digest = store.shard.digest()
    (snapshot.folders(tmp_path / "snapshots")[0][1] / "manifest.json").unlink()
    with worlds.store(tmp_path) as store:  # the log reaches back to the first push
        assert store.shard.digest() == digest
        push_some(store, rng, 3, 3)
        store.snapshot()
        push_some(store, rng, 6, 3)
        store.snapshot()
    for _, folder in snapshot.folders(tmp_path / "snapshots"):
        (folder / "rings").write_bytes(b"")
    with pytest.raises(SnapshotError, match="does not reach back"), worlds.store(tmp_path):
        pass


def test_an_unfinished_snapshot_is_no_snapshot(tmp_path):
    (tmp_path / "snapshots" / ".writing-7").mkdir(parents=True)
    with worlds.store(tmp_path) as store:
        assert store.shard.sequence == 0
    assert not list((tmp_path / "snapshots").iterdir())


def test_a_snapshot_that_cannot_be_written_keeps_the_log(tmp_path, monkeypatch, caplog):
    rng = np.random.default_rng(3)
    with worlds.store(tmp_path) as store:
        push_some(store, rng, 0, 3)

        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError):
            store.snapshot()
        store.snapshot_aside()
        store._wait()
        assert "could not be written" in caplog.text
        monkeypatch.undo()
        push_some(store, rng, 3, 3)
        digest = store.shard.digest()
    with worlds.store(tmp_path) as store:
        assert store.shard.digest() == digest


def test_damage_in_the_log_is_refused(tmp_path):
    with worlds.store(tmp_path) as store:
        push_some(store, np.random.default_rng(3), 0, 3)
    path = segments(tmp_path / "log")[0][1]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogError), worlds.store(tmp_path):
        pass


def test_one_process_a_folder(tmp_path):
    with worlds.store(tmp_path), pytest.raises(BlockingIOError), worlds.store(tmp_path):
        pass
    with worlds.store(tmp_path):
        pass


def test_a_layout_is_kept_within_a_version_and_parameters_may_change(tmp_path):
    rng = np.random.default_rng(3)
    with worlds.store(tmp_path) as store:
        push_some(store, rng, 0, 5)
        digest = store.shard.digest()
    with pytest.raises(SpecError, match="new version"), worlds.store(tmp_path, [worlds.spec(dim=4)]):
        pass
    with pytest.raises(SpecError, match="shard 0 of 1"), worlds.store(tmp_path, index=1, shards=2):
        pass
    faster = [worlds.spec(params={"learning_rate": 0.9})]
    with worlds.store(tmp_path, faster) as store:
        assert store.shard.digest() == digest  # replayed with the rate that it was learnt with
        push_some(store, rng, 5, 5)
        digest = store.shard.digest()
    with worlds.store(tmp_path, faster) as store:
        assert store.shard.digest() == digest
    with worlds.store(tmp_path, [worlds.spec(version=2, dim=4)]) as store:  # a new version begins empty, under a scope of its own
        assert store.shard.sequence == 10
        assert len(store.shard.tables["fm", "weights"]) == 0
        assert store.shard.push("fm", "click", worlds.causes([0]), {}).status == "applied"


def test_the_epoch_grows_at_every_opening(tmp_path):
    clock, epochs = count(5), []
    for _ in range(3):
        with worlds.store(tmp_path, now_ms=lambda: next(clock)) as store:
            epochs.append(store.shard.epoch)
            push_some(store, np.random.default_rng(0), store.shard.sequence, 1)
            store.snapshot()
    with worlds.store(tmp_path, now_ms=lambda: 0) as store:  # a clock that went back
        epochs.append(store.shard.epoch)
    assert epochs == sorted(set(epochs))


def test_a_ring_that_was_lengthened_stays_closed_where_it_was_cut(tmp_path):
    """Pages that a short ring dropped are not taken for pages in which nothing was applied, whether from a snapshot or from the log."""

    def opened(ring_length):
        return Store(tmp_path, [worlds.spec()], 0, 1, 5000, ring_length, lambda: 1)

    store = opened(4096)
    for offset in (5, 9000):
        store.shard.push("fm", "click", worlds.causes([offset]), {})
    store.snapshot()
    store.shard.push("fm", "click", worlds.causes([20_000]), {})
    digest = store.shard.digest()
    store.close()
    store = opened(4096)
    assert store.shard.digest() == digest and store.shard.rings.count("fm@1") == 3  # the ring holds one of them
    store.close()
    store = opened(1 << 16)
    assert store.shard.rings.count("fm@1") == 3
    assert store.shard.known("fm", "click", worlds.causes([5, 8191, 8192, 9000, 20_000])).tolist() == [OLD, OLD, NEW, APPLIED, APPLIED]
    with pytest.raises(TooOld):
        store.shard.push("fm", "click", worlds.causes([5]), {})
    store.close()
