"""Snapshots that hold only what came since a full one: together they are the state of their moment, whatever came meanwhile."""

import errno
import os
import shutil

import numpy as np
import pytest

from headrace.ps import snapshot
from headrace.ps.backup import backup, place_of, restore
from headrace.ps.cutting import Cutting
from headrace.ps.sealed import sealed
from headrace.ps.table import DIRTY
from headrace.ps.versions import cut_of, served_of
from headrace.rpc.freshness import Newest
from tests.ps import worlds
from tests.ps.test_cutting import KINDS, Crowd


def by_key(stored):
    """What a table is, without the places of its rows."""
    order = np.argsort(stored.keys)
    touched = stored.touched[order].tolist() if len(stored.touched) else []
    changed = np.sort(stored.keys[stored.changed]).tolist()
    waiting = {name: array.ravel().tolist() for name, array in stored.admission.items()}
    gone, published = stored.gone.tolist(), stored.published.tolist()
    return stored.keys[order].tolist(), stored.rows[order].tobytes(), touched, changed, gone, published, waiting


def whole(cut):
    tables = {at: (table.version, table.layout, by_key(table.stored)) for at, table in cut.tables.items()}
    return cut.sequence, cut.epoch, tables, cut.rings, cut.firsts, cut.clocks


def taken(cutting, meanwhile=lambda: None):
    while cutting.step():
        meanwhile()
    return cutting.cut()


@pytest.mark.parametrize("kind", KINDS)
def test_a_delta_over_its_full_snapshot_is_the_state_of_the_moment_at_which_it_began(tmp_path, kind):
    with worlds.store(tmp_path / "shard", [worlds.spec(**KINDS[kind])], rows_max=60_000) as store:
        crowd, folder = Crowd(store), tmp_path / "snapshots"
        for _ in range(5):
            crowd.move()
        full = Cutting(store.shard, since=True)
        crowd.move()
        snapshot.write(folder, taken(full, crowd.move))  # what comes while it is copied is of the next
        for turn in range(6):
            for _ in range(turn):
                crowd.move()
            wanted, cutting = whole(store.shard.cut()), Cutting(store.shard, full.sequence)
            crowd.move()  # before the first row is copied
            path = snapshot.write(folder, taken(cutting, crowd.move))
            assert whole(snapshot.read(path)) == wanted
            assert sealed(path)["base"] == full.sequence
            assert not any((table.arrays().flags & 4).any() for table in store.shard.tables.values())


def test_rows_that_nobody_pushed_since_are_not_written_again(tmp_path):
    with worlds.store(tmp_path, rows_max=60_000, deltas=3) as store:
        store.turn = lambda work: work()
        crowd = Crowd(store)
        for _ in range(9):
            crowd.move()
        full = store.written(store.shard.sequence)
        table = store.shard.tables["fm", "weights"]
        assert not (table.arrays().flags & DIRTY).any()
        rows = len(table)
        key = table.keys_at(np.array([5]))
        store.shard.push("fm", "click", worlds.causes([99]), {"weights": (key, np.ones((1, 3), np.float32))}, Newest(7, 0, 99, 1))
        path = store.written(store.shard.sequence)
        said = next(one for one in sealed(path)["tables"] if one["table"] == "weights")
        assert (said["rows"], said["delta"]) == (rows, 1)
        assert os.stat(path / "fm.weights.rows").st_ino == os.stat(full / "fm.weights.rows").st_ino, "links take no room"
        assert (path / "fm.weights.delta.rows").stat().st_size == 4 * said["width"]


def kinds(store):
    """(sequence, base) of what is kept."""
    return [(sequence, sealed(path)["base"]) for sequence, path in snapshot.folders(store.folder / "snapshots")]


def one_push(store, offset):
    keys = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    store.shard.push("fm", "click", worlds.causes([offset]), {"weights": (keys, np.ones((3, 3), np.float32))}, Newest(7, 0, offset, 1))


def filled(store):
    store.turn = lambda work: work()
    crowd = Crowd(store)
    crowd.move()
    crowd.move()


def test_after_so_many_a_full_one_follows_and_the_newest_of_the_one_before_is_kept(tmp_path):
    with worlds.store(tmp_path, rows_max=60_000, deltas=2) as store:
        filled(store)
        seen = []
        for offset in range(100, 108):
            one_push(store, offset)
            store.written(store.shard.sequence)
            seen.append(kinds(store))
        first = seen[0][0][0]
        assert seen[0] == [(first, 0)] and seen[1] == [(first, 0), (first + 1, first)]
        assert seen[2] == [(first + 1, first), (first + 2, first)], "the rows of the full one are in each"
        assert seen[3] == [(first + 2, first), (first + 3, 0)]
        assert seen[4] == [(first + 2, first), (first + 3, 0), (first + 4, first + 3)], "not only what shares its bytes"
        assert seen[5] == [(first + 2, first), (first + 4, first + 3), (first + 5, first + 3)]
        assert seen[6][-1] == (first + 6, 0)
        first_record = min(int(path.stem.split("-")[1]) for path in (tmp_path / "log").glob("log-*.bin"))
        assert 1 < first_record <= seen[7][0][0] + 1, "the log reaches back to the oldest of them"
        digest = store.shard.digest()
    with worlds.store(tmp_path, rows_max=60_000, deltas=2) as again:
        assert again.shard.digest() == digest
        again.turn = lambda work: work()
        one_push(again, 200)
        assert sealed(again.written(again.shard.sequence))["base"] == 0, "whoever opens it does not know what came since"


@pytest.mark.parametrize("file", ["fm.weights.rows", "fm.counts.keys", "fm.weights.delta.rows", "fm.weights.delta.changed",
                                  "manifest.json"])
def test_a_damaged_byte_of_what_several_share_leaves_one_that_does_not(tmp_path, file, caplog):
    with worlds.store(tmp_path / "a", rows_max=60_000, deltas=2) as store:
        filled(store)
        for offset in range(100, 106):
            one_push(store, offset)
            store.written(store.shard.sequence)
        crowd = Crowd(store)
        crowd.offset = 300
        crowd.move()
        digest = store.shard.digest()
        newest = snapshot.folders(tmp_path / "a" / "snapshots")[-1][1]
    data = bytearray((newest / file).read_bytes()) or bytearray(b"x")
    data[len(data) // 2] ^= 1
    with open(newest / file, "r+b") as hurt:  # in place: every link of it is hurt
        hurt.write(data)
    with worlds.store(tmp_path / "a", rows_max=60_000) as store:
        assert store.shard.digest() == digest
    assert "is refused" in caplog.text


def test_more_than_half_of_the_rows_are_followed_by_a_full_one(tmp_path):
    with worlds.store(tmp_path, rows_max=60_000, deltas=9) as store:
        store.turn = lambda work: work()
        crowd = Crowd(store)
        bases = []
        for _ in range(4):
            crowd.move()
            bases.append(sealed(store.written(store.shard.sequence))["base"])
        assert bases[0] == bases[2] == 0 and bases[1] > 0


def test_without_hard_links_they_are_full(tmp_path, monkeypatch, caplog):
    with worlds.store(tmp_path, rows_max=60_000, deltas=2) as store:
        filled(store)
        store.written(store.shard.sequence)

        def refuse(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        one_push(store, 100)
        store.written(store.shard.sequence)  # the second try is full
        assert "the next are full: [Errno 1] Operation not permitted" in caplog.text
        for offset in (101, 102):
            one_push(store, offset)
            store.written(store.shard.sequence)
        assert [base for _, base in kinds(store)] == [0, 0]


def test_versions_and_backups_are_of_the_whole(tmp_path):
    spec = worlds.spec()
    with worlds.store(tmp_path / "ps" / "0", [spec], rows_max=60_000, deltas=3) as store:
        filled(store)
        store.written(store.shard.sequence)
        one_push(store, 100)
        path = store.written(store.shard.sequence)
        assert sealed(path)["base"]
        keys, values = cut_of(path, served_of(spec), (0, 64)).tables["weights"]
        order, table = np.argsort(keys), store.shard.tables["fm", "weights"]
        assert len(keys) == len(table) and (table.pull(keys[order]) == values[order]).all()
        digest = store.shard.digest()
        place = place_of(str(tmp_path / "cold"))
        backup(tmp_path / "ps", place, "one")
    shutil.rmtree(tmp_path / "ps")
    restore(place, "one", tmp_path / "ps")
    with worlds.store(tmp_path / "ps" / "0", [spec], rows_max=60_000) as store:
        assert store.shard.digest() == digest
