"""S shards as T: the same rows, the same causes, the same to a replica; and what is not drained or not whole is refused."""

import itertools
import shutil

import numpy as np
import pytest

from headrace.ps import kernels
from headrace.ps.publish import Publisher
from headrace.ps.replica import Replica
from headrace.ps.reshard import ReshardError, reshard
from headrace.ps.shard import shard_of
from headrace.rpc.freshness import Newest
from tests.ps import worlds

KINDS = {"plain": {}, "exact": {"admission": "exact", "admit_after": 3, "admit_keys": 5000},
         "bloom": {"admission": "bloom", "admit_keys": 500},
         "ttl": {"ttl_s": 30, "optimizer": "adam"}, "lru": {"bytes_max": 1_400_000, "optimizer": "ftrl"}}


class Cluster:
    """Shards in folders, to which every push goes; what they publish goes to one replica."""

    def __init__(self, folder, spec):
        self.folder, self.spec, self.rng, self.offset = folder, spec, np.random.default_rng(3), 0
        self.replica = Replica([spec], 1, 100_000, lambda: 0)
        self.replica.gaps.clear()

    def run(self, shards, pushes, publish=True):
        """Open all, push, publish; {key: row} of everything then, and digests."""
        stores = [worlds.Store(self.folder / str(i), [self.spec], i, shards, 60_000, worlds.RING, lambda: 5) for i in range(shards)]
        try:
            for _ in range(pushes):
                self.offset += 1
                keys = np.unique(self.rng.integers(300 * self.offset, 300 * self.offset + 2500, 1500).astype(np.uint64))
                keys *= np.uint64(0x9E3779B97F4A7C15)
                grads = self.rng.normal(size=(len(keys), 3)).astype(np.float32)
                owner = shard_of(kernels.slots_of(keys), shards)
                for i, store in enumerate(stores):
                    store.shard.push("fm", "click", worlds.causes([self.offset]), {"weights": (keys[owner == i], grads[owner == i])},
                                     Newest(7, 0, self.offset, 5000 * self.offset))
                    store.shard.sweep()
            if publish:
                sent = []
                for store in stores:
                    Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 0).run_pass()
                self.replica.fold_many(sent)
            return self.state(stores)
        finally:
            for store in stores:
                store.close()

    def state(self, stores):
        held = [store.shard.tables["fm", "weights"].stored() for store in stores]
        rows = {int(key): (*row.tolist(), int(at)) for one in held
                for key, row, at in zip(one.keys, one.rows, one.touched if len(one.touched) else np.zeros(len(one.keys)), strict=True)}
        unsent = {int(key) for one in held for key in one.keys[one.changed]}
        gone = {int(key) for one in held for key in one.gone}
        return rows, unsent, gone

    def moved(self, shards):
        target = self.folder.with_name("target")
        said = reshard(self.folder, target, shards, 60_000, worlds.RING, lambda: 7)
        shutil.rmtree(self.folder)
        target.rename(self.folder)
        return said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 7), (7, 4), (3, 3), (2, 64)])
def test_what_s_shards_held_t_shards_hold_and_go_on(tmp_path, kind, before, after):
    cluster = Cluster(tmp_path / "ps", worlds.spec(**KINDS[kind]))
    cluster.run(before, 12)
    held = cluster.run(before, 6, publish=False)
    said = cluster.moved(after)
    assert sum(said.rows) == len(held[0]) and said.epoch > 5
    assert cluster.run(after, 0, publish=False) == held
    rows, unsent, gone = cluster.run(after, 8)
    assert not unsent and not gone
    table = cluster.replica.held["fm", "weights"].table
    assert set(table.stored().keys.tolist()) == set(rows) and cluster.replica.counts["gaps"] == 0
    keys = np.array(list(rows), np.uint64)
    assert (table.pull(keys) == np.array([row[:3] for row in rows.values()], np.float32)).all()


@pytest.mark.parametrize("kind", ["plain", "exact", "ttl"])
def test_a_move_changes_nothing_of_what_is_learnt(tmp_path, kind):
    """The same pushes with and without moves between them end in the same rows, bit for bit; those that only a table's own room decides
    (lru) or a filter's size may not."""
    ends = []
    for name, moves in (("moved", (4, 1, 7)), ("stayed", ())):
        cluster = Cluster(tmp_path / name / "ps", worlds.spec(**KINDS[kind]))
        shards, states = 2, None
        for after in itertools.zip_longest(range(4), moves):
            states = cluster.run(shards, 5)
            if after[1]:
                cluster.moved(after[1])
                shards = after[1]
        ends.append(states)
    assert ends[0] == ends[1] and ends[0][0]


def test_causes_are_known_to_whoever_has_the_slots_now(tmp_path):
    cluster = Cluster(tmp_path / "ps", worlds.spec())
    cluster.run(2, 5)
    cluster.moved(3)
    for i in range(3):
        with worlds.store(tmp_path / "ps" / str(i), [cluster.spec], i, 3, 60_000) as store:
            assert store.shard.push("fm", "click", worlds.causes([3]), {}).status == "duplicate"
            assert store.shard.push("fm", "click", worlds.causes([6]), {}).status == "applied"


def test_shards_that_have_not_drained_are_refused(tmp_path):
    cluster = Cluster(tmp_path / "ps", worlds.spec())
    cluster.run(2, 3)
    with worlds.store(tmp_path / "ps" / "1", [cluster.spec], 1, 2, 60_000) as store:
        store.shard.push("fm", "click", worlds.causes([7, 8]), {})
    with pytest.raises(ReshardError, match=r"shard 1 has not applied .* \(\+2 of fm@1\).*backfill"):
        cluster.moved(3)
    assert not (tmp_path / "target").exists()


def test_what_is_not_whole_is_refused(tmp_path):
    cluster = Cluster(tmp_path / "ps", worlds.spec())
    with pytest.raises(ReshardError, match="no shard 0"):
        reshard(tmp_path / "ps", tmp_path / "t", 2, 10, worlds.RING, lambda: 1)
    cluster.run(3, 2)
    with pytest.raises(ReshardError, match="1 to 64"):
        reshard(tmp_path / "ps", tmp_path / "t", 65, 10, worlds.RING, lambda: 1)
    with worlds.store(tmp_path / "ps" / "1", [cluster.spec], 1, 3, 60_000), pytest.raises(BlockingIOError):
        reshard(tmp_path / "ps", tmp_path / "t", 2, 60_000, worlds.RING, lambda: 1)
    (tmp_path / "ps" / "2").rename(tmp_path / "ps" / "away")
    with pytest.raises(ReshardError, match="shard 2 of 3 is missing"):
        reshard(tmp_path / "ps", tmp_path / "t", 2, 60_000, worlds.RING, lambda: 1)
    shutil.copytree(tmp_path / "ps" / "1", tmp_path / "ps" / "2")
    with pytest.raises(ReshardError, match="is of shard 1 of 3"):
        reshard(tmp_path / "ps", tmp_path / "t", 2, 60_000, worlds.RING, lambda: 1)
    assert not (tmp_path / "t").exists()
