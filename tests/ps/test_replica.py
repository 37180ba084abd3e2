import contextlib
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.ps import kernels
from headrace.ps.client import ParameterClient
from headrace.ps.index import kernel_input
from headrace.ps.publish import Publisher
from headrace.ps.replica import Gap, Replica
from headrace.ps.resync import close_gap, keep_closed
from headrace.ps.service import replica_verbs, shard_verbs
from headrace.ps.shard import shard_of, slots_of_shard
from headrace.rpc.client import Client
from headrace.rpc.errors import BadMessage, Refused, Unavailable
from headrace.rpc.freshness import Newest
from headrace.rpc.owner import Owner
from tests.ps import worlds

KEYS = np.arange(300, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # of worlds.push_of, known and unknown
WEIGHTS = Gap("fm", "weights", 0)
NEWEST = Newest(7, 0, 1, 5)


def replica_of(now=lambda: 1000):
    return Replica([worlds.spec()], 1, 5000, now)


def same(replica, shard):
    return (replica.pull("fm", "weights", KEYS) == shard.pull("fm", "weights", KEYS)).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), repeats=st.integers(1, 3), every=st.integers(1, 5), late=st.booleans())
def test_equals_the_shard_after_random_pushes(tmp_path_factory, seed, repeats, every, late):
    """Blocks folded once or more, in runs that begin again further back, as a consumer that restarts reads them."""
    rng, sent, folded = np.random.default_rng(seed), [], 0
    with worlds.store(tmp_path_factory.mktemp("shard")) as store:
        replica = replica_of()
        publisher = Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1)
        for i in range(12):
            store.shard.push("fm", "click", worlds.causes([i]), worlds.push_of(rng))
            if i % every == 0:
                publisher.run_pass()
                if not late:
                    replica.fold_many(sent[int(rng.integers(0, folded + 1)) :])
                    folded = len(sent)
        publisher.run_pass()
        for _ in range(repeats):
            replica.fold_many(sent)
        assert same(replica, store.shard)
        assert replica.counts["gaps"] == 0
        assert replica.sequence("fm") == store.shard.sequence


def test_a_whole_topic_shows_no_gap_and_an_older_block_is_refused(tmp_path):
    rng, sent = np.random.default_rng(1), []
    with worlds.store(tmp_path) as store:
        publisher = Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 400)
        for i in range(5):
            store.shard.push("fm", "click", worlds.causes([i]), worlds.push_of(rng))
            publisher.run_pass()
        replica = replica_of()
        assert replica.age_ms("fm") == -1
        assert replica.fold_many(sent) == len(sent)
        assert replica.counts["gaps"] == 0
        assert replica.age_ms("fm") == 600
        older = next(r for r in sent if any(r["slot"] == s["slot"] and s["last_sequence"] > r["last_sequence"] for s in sent))
        assert replica.fold_many([older]) == 0
        assert replica.counts["older"] == 1
        assert same(replica, store.shard)


def test_wrong_blocks_are_refused(tmp_path):
    sent = []
    with worlds.store(tmp_path) as store:
        store.shard.push("fm", "click", worlds.causes([1]), worlds.push_of(np.random.default_rng(1)))
        Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1).run_pass()
    replica = replica_of()
    for wrong in ({"dim": 4}, {"slot": 64}, {"slot": -1}, {"values": sent[0]["values"][:-4]}, {"deleted": b"1234567"}):
        with pytest.raises(BadMessage):
            replica.fold_many([{**sent[0], **wrong}])
    assert replica.fold_many([{**sent[0], "model": "other"}, {**sent[0], "table": "counts"}]) == 0
    assert replica.counts["foreign"] == 2
    with pytest.raises(Refused, match="fm/weights"):
        replica.pull("fm", "counts", KEYS)


def blocks_of_a_push(tmp_path):
    sent = []
    with worlds.store(tmp_path) as store:
        store.shard.push("fm", "click", worlds.causes([1]), worlds.push_of(np.random.default_rng(1)), NEWEST)
        Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1).run_pass()
        return sent, store.shard.pull("fm", "weights", KEYS)


def test_blocks_before_a_wrong_one_are_put(tmp_path):
    sent, wanted = blocks_of_a_push(tmp_path)
    replica = replica_of()
    with pytest.raises(BadMessage):
        replica.fold_many([*sent, {**sent[0], "dim": 4}])
    assert (replica.pull("fm", "weights", KEYS) == wanted).all()


def test_a_full_replica_says_so_and_keeps_what_it_took(tmp_path):
    sent, wanted = blocks_of_a_push(tmp_path)
    rows = sum(len(block["keys"]) // 8 for block in sent)
    replica = Replica([worlds.spec()], 1, rows, lambda: 1)
    assert replica.fold_many(sent + sent) == 2 * len(sent)  # known keys need no room
    assert (replica.pull("fm", "weights", KEYS) == wanted).all()
    small = Replica([worlds.spec()], 1, rows - 1, lambda: 1)
    with pytest.raises(Refused, match="full"):
        small.fold_many(sent)
    assert len(small.held["fm", "weights"].table) == rows - len(sent[-1]["keys"]) // 8


def test_the_newest_cause_is_told_once_a_pass_and_model(tmp_path):
    sent, _ = blocks_of_a_push(tmp_path)
    told = []
    replica = Replica([worlds.spec(), replace(worlds.spec(), model="lr")], 1, 5000, lambda: 1, told.append)
    replica.fold_many([{**block, "model": model} for model in ("fm", "lr") for block in sent])
    assert len(sent) > 1 and told == [NEWEST, NEWEST] and replica.newest == {"fm": NEWEST, "lr": NEWEST}


def test_a_lost_block_shows_a_gap_and_an_export_closes_it(tmp_path):
    rng, sent, owner = np.random.default_rng(1), [], Owner("replica")
    owner.start()
    with worlds.store(tmp_path) as store, worlds.served(shard_verbs(store)) as (server, _):
        publisher = Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1)
        replica = replica_of()
        replica.gaps.clear()
        client = Client(server.address)
        for i in range(8):
            store.shard.push("fm", "click", worlds.causes([i]), worlds.push_of(rng))
            publisher.run_pass()
            if i not in (3, 4):
                owner.call(lambda: replica.fold_many(sent))
            sent.clear()
        assert replica.gaps == {WEIGHTS}
        assert replica.counts["gaps"] > 0
        assert not same(replica, store.shard)
        assert close_gap(replica, owner, client, WEIGHTS) == len(store.shard.tables["fm", "weights"])
        assert not replica.gaps and not replica.closing
        assert same(replica, store.shard)
        store.shard.push("fm", "click", worlds.causes([8]), worlds.push_of(rng))
        publisher.run_pass()
        replica.fold_many(sent)
        assert not replica.gaps
        assert same(replica, store.shard)
        client.close()
    owner.stop()
    with pytest.raises(Unavailable):
        owner2 = Owner("again")
        owner2.start()
        try:
            close_gap(replica, owner2, Client(server.address, 1.0), WEIGHTS)
        finally:
            owner2.stop()
    assert replica.gaps == {WEIGHTS}


def test_an_export_races_with_blocks(tmp_path, monkeypatch):
    """Pages of 16 rows while pushes and publishing go on: nothing newer is overwritten, and no late block brings an old value back."""
    monkeypatch.setattr("headrace.ps.service.PAGE_ROWS", 16)
    rng, owner, stop, delayed = np.random.default_rng(1), Owner("replica"), threading.Event(), []
    owner.start()
    replica = replica_of()
    with worlds.store(tmp_path) as store, worlds.served(shard_verbs(store)) as (server, shard_owner):
        publisher = Publisher(store.shard, lambda topic, key, record: delayed.append(record), lambda: 1)
        for i in range(30):
            store.shard.push("fm", "click", worlds.causes([i]), worlds.push_of(rng))
        resync = threading.Thread(target=keep_closed, args=(replica, owner, [server.address], stop, 0.0))
        resync.start()
        for i in range(30, 400):
            shard_owner.call(lambda i=i: store.shard.push("fm", "click", worlds.causes([i]), worlds.push_of(rng)))
            shard_owner.call(publisher.run_pass)
            if i % 7 == 0:
                batch = delayed[:-20]
                del delayed[: len(batch)]
                if i % 5 == 0:
                    batch = batch[30:]  # lost
                owner.call(lambda batch=batch: replica.fold_many(batch))
        owner.call(lambda: replica.fold_many(delayed))
        while owner.call(lambda: bool(replica.gaps or replica.closing)):
            stop.wait(0.01)
        stop.set()
        resync.join()
        assert same(replica, store.shard)
    owner.stop()


def test_a_shard_that_lost_its_end_supersedes_by_its_epoch(tmp_path):
    rng, sent = np.random.default_rng(1), []
    replica = replica_of()
    for folder, pushes, epoch in (("a", 9, 5), ("b", 2, 6)):
        with worlds.store(tmp_path / folder, now_ms=lambda epoch=epoch: epoch) as store:
            for i in range(pushes):
                store.shard.push("fm", "click", worlds.causes([i]), worlds.push_of(rng, rows=400))
            Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1).run_pass()
            replica.fold_many(sent)
            replica.gaps -= {WEIGHTS} if folder == "a" else set()
            known = store.shard.tables["fm", "weights"].stored().keys
            assert (replica.pull("fm", "weights", known) == store.shard.pull("fm", "weights", known)).all()
    assert replica.gaps == {WEIGHTS}  # what the shard no longer knows must not stay
    assert replica.fold_many(sent[:1]) == 0


def test_verbs():
    replica = replica_of()
    with worlds.served(replica_verbs(replica)) as (server, _):
        client = Client(server.address)
        header, arrays = client.call("pull", {"model": "fm", "table": "weights"}, {"keys": KEYS})
        assert header == {"sequence": 0, "age_ms": -1, "newest": None, "version": 0, "whole": False}
        assert (arrays["values"] == replica.pull("fm", "weights", KEYS)).all()
        assert client.call("stats")[0]["open_gaps"] == [["fm", "weights", 0]]
        client.close()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), training=st.integers(1, 6), serving=st.integers(1, 6))
def test_serving_shards_hold_their_slots_whatever_the_training_shards_are(tmp_path_factory, seed, training, serving):
    """Blocks, and gaps that are closed from the training shards that own a part of the slots: each key is held where it is asked for."""
    rng, sent, owner = np.random.default_rng(seed), [], Owner("replicas")
    owner.start()
    folder = tmp_path_factory.mktemp("shards")
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(worlds.store(folder / str(i), index=i, shards=training)) for i in range(training)]
        servers = [stack.enter_context(worlds.served(shard_verbs(store)))[0] for store in stores]
        client = ParameterClient([server.address for server in servers])
        replicas = [Replica([worlds.spec()], training, 5000, lambda: 1, serving=(i, serving)) for i in range(serving)]
        for i in range(8):
            client.push("fm", "click", worlds.causes([i]), lambda index: worlds.push_of(rng))
            for store in stores:
                Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1).run_pass()
            if i == 5:
                sent.clear()  # a lost part of the topic
        stop = threading.Event()
        for replica in replicas:
            assert {gap.shard for gap in replica.gaps} == {s for s in range(training) if set(range(*slots_of_shard(s, training)))
                                                           & set(range(*replica.slots))}
            replica.fold_many(sent)
            closing = threading.Thread(target=keep_closed, args=(replica, owner, [server.address for server in servers], stop, 0.0))
            closing.start()
            while not owner.call(lambda replica=replica: replica.whole):
                pass
            stop.set()
            closing.join()
            stop.clear()
        slots, wanted = kernels.slots_of(kernel_input(KEYS)), client.pull("fm", "weights", KEYS)[0]
        for i, replica in enumerate(replicas):
            mine = shard_of(slots, serving) == i
            assert (replica.pull("fm", "weights", KEYS[mine]) == wanted[mine]).all()
            held = replica.held["fm", "weights"].table.stored().keys
            assert (shard_of(kernels.slots_of(kernel_input(held)), serving) == i).all(), "and nothing of another's"
            if not mine.all():
                with pytest.raises(Refused, match=r"replica\.shards"):
                    replica.pull("fm", "weights", KEYS)
        client.close()
    owner.stop()
