import json
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest

from headrace.ps.client import ParameterClient, PushResult, summed
from headrace.ps.service import shard_verbs
from headrace.rpc.client import Client
from headrace.rpc.errors import BadMessage, Refused, Stale, TooOld, Unavailable
from tests.ps import worlds

SPREAD = np.arange(500, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


@pytest.fixture
def two(tmp_path):
    """(client, stores) of two shards in this process."""
    with ExitStack() as stack:
        stores = [stack.enter_context(worlds.store(tmp_path / str(i), index=i, shards=2)) for i in range(2)]
        servers = [stack.enter_context(worlds.served(shard_verbs(store)))[0] for store in stores]
        client = ParameterClient([server.address for server in servers], 5.0)
        stack.callback(client.close)
        yield client, stores


def computing(rows, log=None):
    """compute() over causes that each have a few keys: counts are exact whatever the cut."""

    def compute(index):
        if log is not None:
            log.append(index.tolist())
        keys, counts = np.unique(rows[index].ravel(), return_counts=True)
        weights = np.repeat(counts.astype(np.float32)[:, None], 3, 1)
        return {"counts": (SPREAD[keys], counts.astype(np.int64)[:, None]), "weights": (SPREAD[keys], weights)}

    return compute


def test_pull_keeps_the_order_over_shards(two):
    client, stores = two
    values, sequence = client.pull("fm", "weights", SPREAD[::-1])
    assert sequence == 0
    mine = [store.shard.slots for store in stores]
    assert mine == [(0, 32), (32, 64)]
    again, _ = client.pull("fm", "weights", SPREAD)
    assert (again == values[::-1]).all()
    assert len(np.unique(values[:, 1])) == len(SPREAD)
    assert client.pull("fm", "counts", SPREAD[:0])[0].shape == (0, 1)


def test_several_tables_are_pulled_in_one_call_a_shard(two):
    client, _ = two
    rows = np.random.default_rng(0).integers(0, 500, (20, 4))
    client.push("fm", "click", worlds.causes(range(20)), computing(rows))
    (weights, counts), sequence = client.pull_tables("fm", ("weights", "counts"), SPREAD)
    assert sequence == 1 and (weights == client.pull("fm", "weights", SPREAD)[0]).all()
    assert counts.dtype == np.int64 and (counts == client.pull("fm", "counts", SPREAD)[0]).all() and counts.sum() == 80
    many = np.resize(SPREAD, 40_000)  # more than a call holds
    assert (client.pull_tables("fm", ("counts", "weights"), many)[0][0] == counts[np.arange(40_000) % 500]).all()
    with pytest.raises(Refused, match="nothing"):
        client.pull_tables("fm", ("weights", "nothing"), SPREAD)
    for wrong in ("weights", ["weights", "weights"], 7):
        with pytest.raises(BadMessage, match="tables"):
            client._clients[0].call("pull", {"model": "fm", "tables": wrong}, {"keys": SPREAD[:0]})


def test_push_goes_to_every_shard_once(two):
    client, _ = two
    rows = np.random.default_rng(0).integers(0, 500, (20, 4))
    push = ("fm", "click", worlds.causes(range(20)), computing(rows))
    assert client.push(*push) == PushResult(2, 0, 0, 1)
    assert client.push(*push) == PushResult(0, 2, 0, 1)
    one_key = np.full((1, 4), rows[0, 0])
    assert client.push("fm", "click", worlds.causes([99]), computing(one_key)).applied == 2  # one shard has no row of it
    got = client.pull("fm", "counts", SPREAD)[0].ravel()
    want = Counter(rows.ravel().tolist() + one_key.ravel().tolist())
    assert got.tolist() == [want[i] for i in range(500)]
    assert [s["models"]["fm"]["applied"] for s in client.stats()] == [21, 21]
    assert sum(s["models"]["fm"]["tables"]["counts"]["sum"] for s in client.stats()) == 84
    assert client.push("fm", "click", worlds.causes([]), computing(rows)) == PushResult(0, 0, 0, 0)


def test_recut_by_shard_computes_the_rest(two):
    client, stores = two
    rows, calls = np.random.default_rng(0).integers(0, 500, (10, 4)), []
    for store, offsets in ((stores[0], [1, 2]), (stores[1], [2, 7])):  # what each shard alone has, from a push that was broken off
        mine = [(offset, [k for k in rows[offset] if store.shard.slots[0] <= slot(SPREAD[k]) < store.shard.slots[1]]) for offset in offsets]
        keys, counts = np.unique([k for _, ks in mine for k in ks], return_counts=True)
        store.shard.push("fm", "click", worlds.causes(offsets), {"counts": (SPREAD[keys], counts.astype(np.int64)[:, None])})
    done = client.push("fm", "click", worlds.causes(range(10)), computing(rows, calls))
    assert (done.applied, done.duplicate, done.recut) == (2, 0, 2)
    assert calls == [list(range(10)), [0, 3, 4, 5, 6, 7, 8, 9], [0, 1, 3, 4, 5, 6, 8, 9]]
    want = Counter(rows.ravel().tolist())
    assert client.pull("fm", "counts", SPREAD)[0].ravel().tolist() == [want[i] for i in range(500)]


def slot(key):
    from tests import naive

    return naive.ps_mix(int(key)) >> 58


def test_errors_come_through(two):
    client, _ = two
    keys = SPREAD[:3]
    with pytest.raises(Refused, match="not finite"):
        client.push("fm", "click", worlds.causes([1]), lambda index: {"weights": (keys, np.full((3, 3), np.nan, np.float32))})
    with pytest.raises(Refused, match="no table"):
        client.pull("fm", "weight", keys)
    with pytest.raises(Refused, match="3 keys and 2"):
        client.push("fm", "click", worlds.causes([1]), lambda index: {"weights": (keys, np.zeros((2, 3), np.float32))})
    client.push("fm", "click", worlds.causes([10**6]), lambda index: {})
    with pytest.raises(TooOld):
        client.push("fm", "click", worlds.causes([1]), lambda index: {})


def test_ctrl_c_ends_a_call_as_itself_and_leaves_every_client_usable(two, monkeypatch):
    client, _ = two
    real = Client.begin

    def broken(self, *call):
        finish = real(self, *call)

        def finished():
            answer = finish()
            if self is client._clients[0]:
                raise KeyboardInterrupt
            return answer

        return finished

    before = client.pull("fm", "weights", SPREAD)[0]
    monkeypatch.setattr(Client, "begin", broken)
    with pytest.raises(KeyboardInterrupt):
        client.pull("fm", "weights", SPREAD)
    monkeypatch.undo()
    np.testing.assert_array_equal(client.pull("fm", "weights", SPREAD)[0], before)


def test_nobody_there():
    client = ParameterClient(["127.0.0.1:1"], 0.3)
    with pytest.raises(Unavailable):
        client.pull("fm", "weights", SPREAD)
    client.close()


def start_shard(folder, index, port=0):
    child = subprocess.Popen([sys.executable, "-m", "tests.ps.worlds", str(folder), str(index), "2", str(port)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return child, json.loads(child.stdout.readline())


def end(child):
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()


def test_pushes_are_exact_while_a_shard_is_killed_and_started_again(tmp_path):
    """Two callers push overlapping batches twice each; shard 1 is killed with kill -9 three times in the middle."""
    children, ports = zip(*[start_shard(tmp_path / str(i), i) for i in range(2)], strict=True)
    children, addresses = list(children), [f"127.0.0.1:{port}" for port in ports]
    rows = np.random.default_rng(0).integers(0, 500, (1200, 3))
    failures, ended = [], threading.Event()

    def push_all(seed):
        client, rng = ParameterClient(addresses, 20.0), np.random.default_rng(seed)
        try:
            for _ in range(2):
                for start in range(0, len(rows), 40):
                    at = np.arange(start, min(start + int(rng.integers(40, 70)), len(rows)))
                    client.push("fm", "click", worlds.causes(at), computing_at(rows, at))
        except Exception as error:
            failures.append(error)
        finally:
            client.close()
            ended.set()

    callers = [threading.Thread(target=push_all, args=(seed,)) for seed in range(2)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(3):
            time.sleep(0.3)
            end(children[1])
            children[1], _ = start_shard(tmp_path / "1", 1, ports[1])
        for caller in callers:
            caller.join()
        assert not failures
        client = ParameterClient(addresses, 5.0)
        want = Counter(rows.ravel().tolist())
        assert client.pull("fm", "counts", SPREAD)[0].ravel().tolist() == [want[i] for i in range(500)]
        stats = client.stats()
        assert [s["models"]["fm"]["applied"] for s in stats] == [len(rows)] * 2
        assert stats[0]["duplicates"] + stats[0]["recuts"] > 0
        client.close()
    finally:
        for child in children:
            end(child)


def computing_at(rows, at):
    inner = computing(rows)
    return lambda index: inner(at[index])


def test_pull_push_is_a_push_and_then_a_pull_in_one_call_a_shard(two):
    client, stores = two
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 500, (30, 4))
    keys = rng.permutation(SPREAD)[:120]
    client.push("fm", "click", worlds.causes(range(10)), computing(rows[:10]))
    calls = [store.shard.counts["pushes"] for store in stores]
    done, (weights, counts), sequence = client.pull_push("fm", "click", worlds.causes(range(10, 20)), computing(rows[10:20]),
                                                         ("weights", "counts"), keys)
    assert done == PushResult(2, 0, 0, 2) and sequence == 2
    assert [store.shard.counts["pushes"] for store in stores] == [one + 1 for one in calls]
    assert (counts == client.pull("fm", "counts", keys)[0]).all() and (weights == client.pull("fm", "weights", keys)[0]).all()
    want = Counter(rows[:20].ravel().tolist())
    place = {int(key): i for i, key in enumerate(SPREAD)}
    assert counts.ravel().tolist() == [want[place[int(key)]] for key in keys]
    again, (_, same), _ = client.pull_push("fm", "click", worlds.causes(range(10, 20)), computing(rows[10:20]), ("weights", "counts"), keys)
    assert again.duplicate == 2 and (same == counts).all()
    mixed, (_, more), _ = client.pull_push("fm", "click", worlds.causes(range(15, 30)), computing(rows[15:30]), ("weights", "counts"), keys)
    assert (mixed.applied, mixed.recut) == (2, 2)
    want = Counter(rows.ravel().tolist())
    assert more.ravel().tolist() == [want[place[int(key)]] for key in keys]
    _, (none,), _ = client.pull_push("fm", "click", worlds.causes([99]), computing(rows[:1]), ("weights",), SPREAD[:0])
    assert none.shape == (0, 3)
    with pytest.raises(Refused, match="nothing"):
        client.pull_push("fm", "click", worlds.causes([77]), computing(rows[:1]), ("nothing",), keys)
    assert [one["models"]["fm"]["applied"] for one in client.stats()] == [31, 31], "what is wrong with the pull applies nothing"
    for wrong in ("weights", [], ["weights", "weights"]):
        with pytest.raises(BadMessage, match="tables"):
            client._clients[0].call("pull_push", {"model": "fm", "effect": "click", "tables": wrong},
                                    {**worlds.causes([78])._asdict(), "pull.keys": SPREAD[:0]})


def test_a_shard_notes_how_stale_a_push_is_and_refuses_what_is_beyond_its_bound(two):
    client, stores = two
    rows = np.random.default_rng(0).integers(0, 500, (40, 4))
    client.push("fm", "click", worlds.causes([0]), computing(rows[:1]))
    assert all(store.shard.staleness.told()["count"] == 0 for store in stores), "nothing was pulled"
    client.pull("fm", "weights", SPREAD)
    for offset in range(1, 6):  # other pushes come between: the rows are of before them
        client.push("fm", "click", worlds.causes([offset]), computing(rows[offset : offset + 1]))
    assert [store.shard.staleness.told() for store in stores] == [{"count": 5, "mean": 2.0, "p99": 4, "worst": 4}] * 2
    for store in stores:
        store.shard.staleness.most = 4
    with pytest.raises(Stale, match="5 pushes were applied since"):
        client.push("fm", "click", worlds.causes([6]), computing(rows[6:7]))
    assert [store.shard.counts["stale"] for store in stores] == [1, 1] and stores[0].shard.sequence == 6
    assert client.push("fm", "click", worlds.causes([5]), computing(rows[5:6])).duplicate == 2, "what is known is known, however stale"
    client.pull("fm", "weights", SPREAD)
    assert client.push("fm", "click", worlds.causes([6]), computing(rows[6:7])).applied == 2
    with pytest.raises(BadMessage, match="pulled"):
        client._clients[0].call("push", {"model": "fm", "effect": "click", "pulled": "x"}, worlds.causes([70])._asdict())


def test_threads_are_as_stale_as_their_own_pulls(two):
    client, stores = two
    rows = np.random.default_rng(0).integers(0, 500, (40, 4))
    client.pull("fm", "weights", SPREAD)

    def other():
        client.push("fm", "click", worlds.causes([1]), computing(rows[:1]))  # it has pulled nothing

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert stores[0].shard.staleness.told()["count"] == 0
    client.push("fm", "click", worlds.causes([2]), computing(rows[1:2]))
    assert stores[0].shard.staleness.told()["worst"] == 1


def test_repeats_are_summed():
    keys, grads = summed(np.array([7, 3, 7, 7], np.uint64), np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.int64))
    assert keys.tolist() == [3, 7] and grads.tolist() == [[3, 4], [13, 16]] and grads.dtype == np.int64
