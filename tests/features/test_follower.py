"""A replica says what its shard says at the same sequence: copied while the shard goes on, killed, its shard killed, behind, ahead."""

import shutil

import numpy as np
import pytest

from headrace.features import followed, row_memory, shard
from headrace.features.feature_set import BASE
from headrace.features.followed import Followed
from headrace.features.follower import Follower, Replica
from headrace.features.tail import Tail
from headrace.rpc.errors import BadMessage, Refused, Unavailable
from tests.features.events import HALF_LIFE_S, RING, T0, columns, random_rows, shard_at
from tests.features.test_groups import SHOP, fold, interactions

USERS, ITEMS = np.arange(1, 400, dtype=np.uint64), (np.arange(399) % 299 + 1).astype(np.uint64)
IDLE = {"idle_s": 600.0}


@pytest.fixture
def small(monkeypatch):
    """Blocks of 16 events, 64 rows in memory, 50 rows a copied part."""
    monkeypatch.setattr(row_memory, "BLOCK", 16)
    monkeypatch.setattr(shard, "BLOCK", 16)
    monkeypatch.setattr(followed, "ROWS_MAX", 50)
    return {"log_bytes": 20_000, "rows_bytes": 1}


class Pair:
    """A shard and its follower, and how they die; `between` is called before every question of the follower."""

    def __init__(self, folder, feature_set=BASE, tail_bytes=64 << 20, **settings):
        self.folder, self.set, self.settings, self.tail_bytes = folder, feature_set, settings, tail_bytes
        self.between = lambda: None
        self.follower = None
        self.start_shard()

    def start_shard(self):
        self.shard = shard_at(self.folder / "shard", feature_set=self.set, tail=Tail(self.tail_bytes), **self.settings)
        self.masked = []
        self.verbs = Followed(self.shard, lambda: self.masked).verbs()

    def start_follower(self):
        self.follower = Follower(self.folder / "replica", self.ask, self.set, lambda store: Replica(
            store, half_life_s=HALF_LIFE_S, ring_length=RING, feature_set=self.set, **self.settings))

    def ask(self, verb, header, arrays):
        self.between()
        return self.verbs[verb](header, arrays)

    @property
    def replica(self):
        return self.follower.replica

    def kill_shard(self):
        self.shard.store.close()
        self.start_shard()

    def kill_follower(self):
        if self.follower is not None and self.replica is not None:
            self.replica.store.close()
        self.start_follower()

    def catch_up(self):
        """How many blocks; begins anew when it has to."""
        done = 0
        while True:
            data = None if self.replica is None else self.follower.poll()
            if data is None:
                if self.replica is not None:
                    self.replica.store.close()
                while not self.follower.copy():
                    pass
            elif not data:
                return done
            else:
                self.replica.follow(data)
                done += len(data)

    def close(self):
        self.shard.close()
        if self.follower is not None and self.replica is not None:
            self.replica.close()


def read(one, ts_ms=T0 + 3_000_000):
    n = len(USERS)
    made = one.assemble(USERS, ITEMS, np.zeros((n, 4), np.uint64), np.full(n, ts_ms))
    return np.concatenate([made.values, made.numbers], axis=1), made.keys


def assert_same(pair, ts_ms=T0 + 3_000_000):
    assert pair.replica.counts == pair.shard.counts
    for mine, theirs in zip(read(pair.replica, ts_ms), read(pair.shard, ts_ms), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert pair.replica.user(3).recent.tolist() == pair.shard.user(3).recent.tolist()
    assert pair.replica.popular.top(50)[0].tolist() == pair.shard.popular.top(50)[0].tolist()


def stored(one):
    one.flush()
    return {name: dict(one.store.scan(name)) for name in one.memory.tables}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("idle", [{}, IDLE])
def test_a_replica_says_what_its_shard_says(tmp_path, small, seed, idle):
    """Folds, sweeps and erasures go on while it copies and follows; both are killed at random moments."""
    chance, pair, at = np.random.default_rng(seed), Pair(tmp_path, **small, **idle), 0
    rows = random_rows(2500, seed, users=400, items=300)

    def go_on():
        nonlocal at
        size = int(chance.integers(0, 60))
        if at < len(rows):
            pair.shard.freeze_and_fold(*columns(rows[at : at + size]))
            at += size
        pair.shard.sweep(int(chance.integers(1, 200)))
        if chance.random() < 0.02:
            pair.shard.erase("user", int(chance.integers(1, 400)))

    pair.shard.freeze_and_fold(*columns(rows[:1000]))
    at = 1000
    pair.between = go_on
    pair.start_follower()
    kills = 0
    while at < len(rows):
        pair.between = go_on
        pair.catch_up()
        pair.between = lambda: None
        pair.catch_up()
        assert_same(pair)
        for kill in (pair.kill_shard, pair.kill_follower):
            if chance.random() < 0.5:
                kill()
                kills += 1
        pair.between = go_on
    pair.between = lambda: None
    pair.catch_up()
    assert_same(pair)
    assert stored(pair.replica) == stored(pair.shard) and kills and pair.shard.counts["users"] == len(stored(pair.shard)["users"])
    pair.close()


def test_definitions_and_layouts_of_before(tmp_path, small):
    records = interactions(600, 5)
    pair = Pair(tmp_path, SHOP, **small)
    fold(pair.shard, records[:200])
    pair.start_follower()
    pair.catch_up()
    fold(pair.shard, records[200:400], 200)
    pair.catch_up()
    pair.kill_follower()
    fold(pair.shard, records[400:], 400)
    assert pair.catch_up() > 0
    assert stored(pair.replica) == stored(pair.shard) and pair.replica.counts == pair.shard.counts
    pair.close()


def test_it_goes_on_from_where_it_was_when_either_was_killed(tmp_path):
    """Without another copy: the blocks that were not asked for are still in the shard's log."""
    pair = Pair(tmp_path)
    pair.shard.freeze_and_fold(*columns(random_rows(500, 1)))
    pair.start_follower()
    pair.catch_up()
    pair.shard.freeze_and_fold(*columns(random_rows(500, 2, first_offset=500)))
    pair.kill_shard()
    pair.kill_follower()
    pair.follower.copy = None
    assert pair.catch_up() == 1
    pair.kill_shard()
    assert pair.catch_up() == 0
    pair.shard.freeze_and_fold(*columns(random_rows(500, 3, first_offset=1000)))
    assert pair.catch_up() == 1
    assert_same(pair)
    pair.close()


def test_a_shard_that_lost_its_newest_blocks_is_copied_anew(tmp_path):
    """Its folder comes back older, and goes on otherwise: what the replica has seen is not there any more."""
    pair = Pair(tmp_path)
    pair.shard.freeze_and_fold(*columns(random_rows(300, 1)))
    pair.start_follower()
    pair.shard.close()
    shutil.copytree(tmp_path / "shard", tmp_path / "older")
    pair.start_shard()
    for n in range(3):
        pair.shard.freeze_and_fold(*columns(random_rows(100, n, first_offset=1000 * (n + 1))))
    pair.catch_up()
    pair.shard.store.close()
    shutil.rmtree(tmp_path / "shard")
    shutil.move(tmp_path / "older", tmp_path / "shard")
    pair.start_shard()
    for n in range(2):  # two starts, and blocks of the same numbers
        pair.shard.freeze_and_fold(*columns(random_rows(100, 9 + n, first_offset=1000 * (n + 1))))
        pair.kill_shard()
    pair.shard.freeze_and_fold(*columns(random_rows(100, 20, first_offset=9000)))
    assert pair.follower.poll() is None
    pair.catch_up()
    assert_same(pair)
    pair.close()


def test_who_falls_behind_all_that_is_kept_is_copied_anew(tmp_path):
    pair = Pair(tmp_path, tail_bytes=1)
    pair.shard.freeze_and_fold(*columns(random_rows(300, 1)))
    pair.start_follower()
    pair.catch_up()
    for n in range(3):
        pair.shard.freeze_and_fold(*columns(random_rows(100, n, first_offset=1000 * (n + 1))))
    assert pair.follower.poll() is None
    pair.catch_up()
    assert_same(pair)
    pair.close()


def test_another_shard_at_the_address_is_copied_anew(tmp_path):
    pair, other = Pair(tmp_path / "a"), Pair(tmp_path / "b")
    pair.shard.freeze_and_fold(*columns(random_rows(300, 1)))
    other.shard.freeze_and_fold(*columns(random_rows(300, 2)))
    pair.start_follower()
    pair.catch_up()
    pair.shard.close()
    pair.shard, pair.verbs = other.shard, other.verbs
    assert pair.follower.poll() is None
    pair.catch_up()
    assert_same(pair)
    pair.close()


def test_a_copy_that_was_cut_off_begins_again(tmp_path, small):
    pair, asked = Pair(tmp_path, **small), [0]
    pair.shard.freeze_and_fold(*columns(random_rows(1000, 1, users=400)))

    def away():
        asked[0] += 1
        if asked[0] == 5:
            raise Unavailable("nobody answers")

    pair.between = away
    pair.start_follower()
    with pytest.raises(Unavailable):
        pair.follower.copy()
    assert pair.replica is None
    pair.start_follower()
    assert pair.replica is None, "half a copy is none"
    pair.catch_up()
    assert_same(pair)
    pair.close()


def test_a_disk_that_takes_no_more_loses_nothing(tmp_path):
    pair = Pair(tmp_path)
    pair.shard.freeze_and_fold(*columns(random_rows(300, 1)))
    pair.start_follower()
    pair.catch_up()
    before = read(pair.replica)
    pair.shard.freeze_and_fold(*columns(random_rows(300, 2, first_offset=300)))
    data, write = pair.follower.poll(), pair.replica.store.write

    def full(batch):
        raise OSError(28, "No space left on device")

    pair.replica.store.write = full
    with pytest.raises(Unavailable, match="free the disk"):
        pair.replica.follow(data)
    assert read(pair.replica)[0].shape == before[0].shape and pair.replica.failed
    pair.replica.store.write = write
    pair.shard.freeze_and_fold(*columns(random_rows(300, 3, first_offset=600)))
    assert pair.catch_up() == 1, "the log has the other"
    assert_same(pair)
    pair.close()


def test_what_is_frozen_to_its_default_is_told(tmp_path):
    pair = Pair(tmp_path)
    pair.start_follower()
    pair.catch_up()
    pair.masked = ["user_ctr"]
    pair.follower.poll()
    assert pair.follower.masked == ["user_ctr"]
    pair.close()


def test_a_replica_writes_nothing_of_its_own_and_odd_questions_are_refused(tmp_path):
    pair = Pair(tmp_path)
    pair.start_follower()
    pair.catch_up()
    with pytest.raises(Refused, match=r"features\.address"):
        pair.replica.freeze_and_fold(*columns(random_rows(3, 1)))
    with pytest.raises(Refused, match=r"features\.address"):
        pair.replica.erase("user", 1)
    good = {"feature_set": BASE.name, "name": "x", "start": 1, "next": 1}
    with pytest.raises(Refused, match="same files"):
        pair.verbs["blocks"](good | {"feature_set": "other@1"}, {})
    for odd in ({"next": "1"}, {"next": True}, {"next": None}):
        with pytest.raises(BadMessage):
            pair.verbs["blocks"](good | odd | {"name": pair.follower.name}, {})
    for odd in ({"family": "meta", "since": ""}, {"family": "users", "since": "x"}):
        with pytest.raises(BadMessage):
            pair.verbs["rows"](good | odd, {})
    assert pair.verbs["blocks"](good | {"name": pair.follower.name, "start": 99}, {})[0]["anew"]
    pair.close()
