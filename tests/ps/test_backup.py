"""Cold copies: whole or not there, checked when they come back, and the rest learnt from what the rings lack."""

import shutil

import numpy as np
import pytest

from headrace.ps import backup as backups
from headrace.ps.backup import BackupError, backup, kept, place_of, restore
from headrace.ps.reshard import reshard
from tests.ps import worlds


def push(store, offset):
    store.shard.push("fm", "click", worlds.causes([offset]), worlds.push_of(np.random.default_rng(offset), space=500, rows=200))


@pytest.fixture
def shards(tmp_path):
    """(folder of one shard with a snapshot, its place, digest of that)."""
    with worlds.store(tmp_path / "ps" / "0") as store:
        for offset in range(5):
            push(store, offset)
        store.snapshot()
        digest = store.shard.digest()
        push(store, 9)  # after the copy's moment
    return tmp_path / "ps", place_of(str(tmp_path / "cold")), digest


def test_a_copy_comes_back_and_knows_what_it_lacks(shards, tmp_path):
    folder, place, digest = shards
    made = backup(folder, place, "monday")
    assert kept(place) == [made] and made.sequences == [5] and made.bytes > 1000
    shutil.rmtree(folder)
    assert restore(place, "monday", folder) == made
    with worlds.store(folder / "0") as store:
        assert store.shard.digest() == digest
        assert store.shard.push("fm", "click", worlds.causes([4]), {}).status == "duplicate"
        assert store.shard.push("fm", "click", worlds.causes([9]), {}).status == "applied"


def test_a_copy_of_one_shard_is_made_into_three(shards, tmp_path):
    folder, place, _ = shards
    backup(folder, place, "a")
    restore(place, "a", tmp_path / "again")
    made = reshard(tmp_path / "again", tmp_path / "three", 3, 5000, worlds.RING, lambda: 1)
    assert len(made.rows) == 3 and sum(made.rows) > 300


def test_a_copy_that_was_not_finished_is_not_there(shards, monkeypatch):
    folder, place, _ = shards

    def fail(file, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backups, "_send", fail)
    with pytest.raises(BackupError, match="No space left"):
        backup(folder, place, "a")
    assert kept(place) == []
    with pytest.raises(BackupError, match="no whole copy 'a'"):
        restore(place, "a", folder.with_name("again"))


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "spec"])
def test_a_damaged_copy_is_refused_and_nothing_is_left(shards, tmp_path, damage):
    folder, place, _ = shards
    backup(folder, place, "a")
    copy = tmp_path / "cold" / "a" / "0"
    rows = copy / "fm.weights.rows"
    data = rows.read_bytes()
    if damage == "spec":
        (copy / "spec.json").write_text((copy / "spec.json").read_text().replace('"index": 0', '"index": 1'))
    elif damage == "missing":
        rows.unlink()
    else:
        rows.write_bytes(data[:-8] if damage == "cut" else data[:100] + bytes([data[100] ^ 4]) + data[101:])
    with pytest.raises(BackupError, match="is refused"):
        restore(place, "a", tmp_path / "again")
    assert not (tmp_path / "again").exists() and not list(tmp_path.glob("again*"))


def test_what_cannot_be_is_said(shards, tmp_path):
    folder, place, _ = shards
    backup(folder, place, "a")
    with pytest.raises(BackupError, match="is not empty"):
        restore(place, "a", folder)
    with pytest.raises(BackupError, match="no shard in"):
        backup(tmp_path / "nothing", place, "b")
    with pytest.raises(BackupError, match="file systems know"):
        place_of("ftp://somewhere/x")
    with worlds.store(tmp_path / "young" / "0"), pytest.raises(BackupError, match="no snapshot yet"):
        backup(tmp_path / "young", place, "b")


def test_a_snapshot_that_gives_way_while_it_is_copied_is_left_for_the_newer_one(tmp_path, monkeypatch):
    place, send, sent = place_of(str(tmp_path / "cold")), backups._send, []
    with worlds.store(tmp_path / "ps" / "0") as store:
        push(store, 0)
        store.snapshot()

        def meanwhile(file, *rest):
            sent.append(file)
            if len(sent) == 4:
                for offset in (1, 2):
                    push(store, offset)
                    store.snapshot()
            return send(file, *rest)

        monkeypatch.setattr(backups, "_send", meanwhile)
        assert backup(tmp_path / "ps", place, "a").sequences == [3]
        digest = store.shard.digest()
    restore(place, "a", tmp_path / "again")
    with worlds.store(tmp_path / "again" / "0") as store:
        assert store.shard.digest() == digest
