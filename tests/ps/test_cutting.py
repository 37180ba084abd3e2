"""A cut that is copied between pushes is the state of the moment at which it began, whatever comes meanwhile."""

import threading

import numpy as np
import pytest

from headrace.ps.client import ParameterClient
from headrace.ps.cutting import Cutting, TableCutting
from headrace.ps.publish import Publisher
from headrace.ps.service import shard_verbs
from headrace.rpc.client import Client
from headrace.rpc.errors import Unavailable
from headrace.rpc.freshness import Newest
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server
from tests.ps import worlds

KINDS = {"plain": {}, "exact": {"admission": "exact", "admit_after": 2, "admit_keys": 9000},
         "bloom": {"admission": "bloom", "admit_keys": 500},
         "ttl": {"ttl_s": 40, "optimizer": "adam"}, "lru": {"bytes_max": 1_400_000, "optimizer": "ftrl"}}


class Crowd:
    """Pushes whose keys change with time; some rows go, some are published."""

    def __init__(self, store):
        self.shard, self.rng, self.offset = store.shard, np.random.default_rng(5), 0
        self.publisher = Publisher(store.shard, lambda topic, key, record: None, lambda: 0)

    def move(self):
        self.offset += 1
        keys = np.unique(self.rng.integers(500 * self.offset, 500 * self.offset + 9000, 4000).astype(np.uint64))
        keys *= np.uint64(0x9E3779B97F4A7C15)
        grads = self.rng.normal(size=(len(keys), 3)).astype(np.float32)
        tables = {"weights": (keys, grads), "counts": (keys[:500], np.ones((500, 1), np.int64))}
        self.shard.push("fm", "click", worlds.causes([self.offset]), tables, Newest(7, 0, self.offset, 5000 * self.offset))
        self.shard.sweep()
        if self.offset % 3 == 0:
            self.publisher.run_pass()


def flat(cut):
    """Everything of a cut that a snapshot writes."""
    tables = {}
    for at, table in cut.tables.items():
        arrays = {**table.stored._asdict(), **table.stored.admission}
        arrays.pop("admission")
        tables[at] = table.version, table.layout, {name: array.tolist() for name, array in arrays.items()}
    return cut.sequence, cut.epoch, tables, cut.rings, cut.firsts, cut.clocks


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_meanwhile_is_not_in_it(tmp_path, kind):
    with worlds.store(tmp_path, [worlds.spec(**KINDS[kind])], rows_max=60_000) as store:
        crowd = Crowd(store)
        for _ in range(14):
            crowd.move()
        for turn in range(4):
            wanted, cutting, steps = flat(store.shard.cut()), Cutting(store.shard), 0
            for _ in range(turn):
                crowd.move()  # before the first row is copied, too
            while cutting.step():
                crowd.move()
                steps += 1
            for _ in range(3 - turn):
                crowd.move()
            assert steps > 2 and flat(cutting.cut()) == wanted
            assert not any((table.arrays().flags & 4).any() for table in store.shard.tables.values())


def test_a_second_cut_waits_for_the_first(tmp_path):
    with worlds.store(tmp_path, rows_max=60_000) as store:
        Crowd(store).move()
        first = Cutting(store.shard)
        with pytest.raises(AssertionError, match="one cut of a table at a time"):
            Cutting(store.shard)
        while first.step():
            pass
        Cutting(store.shard).end()


def test_a_cut_that_fails_is_ended_and_the_next_one_is_taken(tmp_path, monkeypatch, caplog):
    with worlds.store(tmp_path, rows_max=60_000) as store:
        Crowd(store).move()
        store.turn = lambda work: work()
        monkeypatch.setattr(TableCutting, "step", lambda self: (_ for _ in ()).throw(MemoryError("no room")))
        with pytest.raises(Unavailable, match="could not be written"):
            store.written(store.shard.sequence)
        assert "no room" in caplog.text and store.shard.tables["fm", "weights"].cutting is None
        monkeypatch.undo()
        assert store.written(store.shard.sequence).name == f"{store.shard.sequence:020d}"


def test_snapshots_of_a_shard_that_is_pushed_to_come_back_whole(tmp_path):
    spec = worlds.spec(**KINDS["lru"])
    with worlds.store(tmp_path, [spec], rows_max=60_000) as store:
        owner = Owner("test")
        store.turn = owner.call
        server = Server("127.0.0.1", 0, shard_verbs(store), owner)
        owner.start()
        client, over, paths = Client(f"127.0.0.1:{server.port}", 60), threading.Event(), []
        pushing = ParameterClient([f"127.0.0.1:{server.port}"])

        def push():
            rng, offset = np.random.default_rng(1), 0
            while not over.is_set():
                offset += 1
                keys = np.unique(rng.integers(700 * offset, 700 * offset + 3000, 2000).astype(np.uint64))
                grads = np.ones((len(keys), 3), np.float32)
                pushing.push("fm", "click", worlds.causes([offset]), lambda index, keys=keys, grads=grads: {"weights": (keys, grads)},
                             Newest(7, 0, offset, 1000 * offset))

        thread = threading.Thread(target=push)
        thread.start()
        try:
            while len(paths) < 6:
                header, _ = client.call("snapshot")
                if header["sequence"]:
                    paths.append(header["path"])
                    assert int(header["path"].rsplit("/", 1)[1]) >= header["sequence"]
        finally:
            over.set()
            thread.join()
        for one in (client, pushing):
            one.close()
        server.shutdown()
        owner.stop()
        digest, sequence = store.shard.digest(), store.shard.sequence
    assert len(set(paths)) > 3
    with worlds.store(tmp_path, [spec], rows_max=60_000) as store:
        assert (store.shard.digest(), store.shard.sequence) == (digest, sequence) and 0 < store.snapshotted <= sequence
