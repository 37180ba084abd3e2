"""Every optimizer with every admission and every way for rows to go; in each, snapshot, log, deltas to a replica and an export that closes
a gap: so every pair of them meets."""

import itertools

import numpy as np
import pytest

from headrace.ps.admission import ADMISSIONS
from headrace.ps.optimizers import OPTIMIZERS
from headrace.ps.publish import Publisher
from headrace.ps.replica import Gap, Replica
from headrace.ps.spec import ROWS_MIN, SpecError
from headrace.rpc.freshness import Newest
from tests.ps import worlds

GOING = {"stay": {}, "ttl": {"ttl_s": 60}, "lru": {"bytes_max": 1_400_000}}
WEIGHTS = Gap("fm", "weights", 0)
CLIPS = {"clip_value": 2.0, "clip_norm": 3.0, "weight_bound": 5.0}


class World:
    """A shard that learns a crowd whose keys change with time, and a replica that follows it."""

    def __init__(self, folder, optimizer, admission, going):
        limits = CLIPS if optimizer != "sum" else {}
        keys = {"admit_keys": 5000} if admission != "none" else {}
        self.spec = worlds.spec(optimizer=optimizer, admission=admission, admit_after=2, **GOING[going], **limits, **keys)
        self.folder, self.rng, self.offset = folder, np.random.default_rng(7), 0
        self.sent, self.replica = [], Replica([self.spec], 1, 100_000, lambda: 0)
        self.replica.gaps.clear()

    def open(self, epoch):
        return worlds.store(self.folder, [self.spec], rows_max=60_000, now_ms=lambda: epoch)

    def push(self, store, times):
        for _ in range(times):
            at_s, self.offset = 1000 + 5 * self.offset, self.offset + 1
            first = 700 * self.offset
            crowd = np.unique(self.rng.integers(first, first + 3000, 2000).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            grads = self.rng.normal(size=(len(crowd), 3)).astype(np.float32)
            newest = Newest(7, 0, self.offset, 1000 * at_s)
            store.shard.push("fm", "click", worlds.causes([self.offset]), {"weights": (crowd, grads)}, newest)
            store.shard.sweep()

    def publish(self, store, fails=False):
        def publish(topic, key, record):
            self.sent.append(record)

        def flush():
            assert not fails, "the broker is away"

        publisher = Publisher(store.shard, publish, lambda: 0, flush)
        if fails:
            with pytest.raises(AssertionError, match="away"):
                publisher.run_pass()
        else:
            publisher.run_pass()
        self.replica.fold_many(self.sent)
        self.sent.clear()

    def follows(self, store, replica=None):
        table, held = store.shard.tables["fm", "weights"], (replica or self.replica).held["fm", "weights"].table
        keys = np.sort(table.stored().keys)
        assert (np.sort(held.stored().keys) == keys).all()
        assert (held.pull(keys) == table.pull(keys)).all()

    def export(self, store, replica, between=lambda: None):
        """As ps/resync.py does."""
        shard, table, start = store.shard, store.shard.tables["fm", "weights"], 0
        replica.begin_closing(WEIGHTS, shard.epoch, shard.sequence)
        while start >= 0:
            keys, weights, start = table.page(start, 3000)
            assert replica.take_page(WEIGHTS, shard.epoch, shard.sequence, keys, weights)
            between()
        start = 0
        while start >= 0:
            start = replica.drop_stale(WEIGHTS, start, 5000)
        replica.end_closing(WEIGHTS, True)


@pytest.mark.parametrize(("optimizer", "admission", "going"), list(itertools.product(OPTIMIZERS, ADMISSIONS, GOING)))
def test_a_pair(tmp_path, optimizer, admission, going):
    world = World(tmp_path, optimizer, admission, going)
    with world.open(1) as store:
        world.push(store, 12)
        world.publish(store)
        world.follows(store)
        world.push(store, 4)
        world.publish(store, fails=True)
        world.push(store, 4)
        store.snapshot()
        world.push(store, 25 if going == "lru" else 5)
        table, counts = store.shard.tables["fm", "weights"], store.shard.removed
        assert (counts["ttl"] > 0) == (going == "ttl") and (counts["lru"] > 0) == (going == "lru")
        assert (table.counts["kept_out"] > 0) == (admission != "none")
        if going == "lru":
            assert ROWS_MIN <= table.rows_max < 20_000 and len(table) <= table.rows_max
        digest, sequence = store.shard.digest(), store.shard.sequence
    with world.open(2) as store:  # as after a kill: the log is the state
        assert (store.shard.digest(), store.shard.sequence) == (digest, sequence)
        world.publish(store)
        world.follows(store)
        lost = Replica([world.spec], 1, 100_000, lambda: 0)
        lost.held["fm", "weights"].table.put(np.arange(500, dtype=np.uint64), np.ones((500, 3), np.float32))  # that the shard never had
        world.export(store, lost)
        world.follows(store, lost)
        world.push(store, 30)
        world.publish(store)
        world.follows(store)
        store.snapshot()
        digest = store.shard.digest()
    with world.open(3) as store:
        assert store.shard.digest() == digest


def test_what_is_folded_during_an_export_stays(tmp_path):
    """A key that comes behind the page that it would have been on, and one that goes before its page is put."""
    world = World(tmp_path, "sgd", "none", "stay")
    with world.open(1) as store:
        world.push(store, 8)
        follower = Replica([world.spec], 1, 100_000, lambda: 0)
        table, added = store.shard.tables["fm", "weights"], []

        def between():
            if not added:
                added.append(True)
                going = table.page(0, 10)[0]
                store.shard._log_and_remove(world.spec, "weights", "ttl", going)
                world.push(store, 1)
                sent = []
                Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 0).run_pass()
                assert any(record["deleted"] for record in sent)
                follower.fold_many(sent)

        world.export(store, follower, between)
        world.follows(store, follower)


@pytest.mark.parametrize("change", [{"ttl_s": 60}, {"bytes_max": 1_400_000}, {"admission": "bloom", "admit_keys": 5000}, {"clip_norm": 0.5},
                                    {"params": {"learning_rate": 0.5}}])
def test_a_table_takes_other_parameters_with_what_it_holds(tmp_path, change):
    world = World(tmp_path, "adagrad", "none", "stay")
    with world.open(1) as store:
        world.push(store, 9)
        world.publish(store)
        before = {name: store.shard.tables["fm", name].stored() for name in ("weights", "counts")}
    world.spec = worlds.spec(optimizer="adagrad", **CLIPS | change)
    with world.open(2) as store:
        table = store.shard.tables["fm", "weights"]
        assert (table.stored().rows == before["weights"].rows).all() and (table.stored().keys == before["weights"].keys).all()
        assert set(table.stored().touched.tolist()) <= {store.shard.clocks["fm"]}, "nobody is old because nobody looked"
        world.push(store, 4)
        world.publish(store)
        world.follows(store)
        digest = store.shard.digest()
    with world.open(3) as store:
        assert store.shard.digest() == digest


def test_a_table_that_holds_too_much_for_its_new_bound_says_so(tmp_path):
    world = World(tmp_path, "adagrad", "none", "stay")
    with world.open(1) as store:
        world.push(store, 20)
    world.spec = worlds.spec(optimizer="adagrad", bytes_max=1_100_000)
    with pytest.raises(SpecError, match=r"fm/weights cannot .* rows, and there is room for .* bytes_max"), world.open(2):
        pass
