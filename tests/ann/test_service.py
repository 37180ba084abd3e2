import socket
import threading

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from headrace.ann.client import AnnClient
from headrace.ann.service import Service
from headrace.config import Config
from headrace.roles import ann as role
from headrace.rpc.errors import BadMessage, Refused, Unavailable
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server


@pytest.fixture
def service():
    return Service(2, CollectorRegistry())


@pytest.fixture
def client(service):
    owner = Owner()
    owner.start()
    server = Server("127.0.0.1", 0, service.verbs(), owner)
    client = AnnClient(server.address)
    yield client
    client.close()
    server.shutdown()
    owner.stop()


def record(name, vector, sequence, space="item", deleted=False, ts_ms=1):
    return {"space": space, "id": name, "vector": np.array(vector, np.float32).tobytes(), "deleted": deleted, "model": "fm",
            "sequence": sequence, "ts_ms": ts_ms}


def test_upsert_search_nearest_stats(client):
    assert client.upsert("item", ["a", "b", "c"], [[1, 0], [0, 1], [1, 1]], [1, 2, 3]) == 3
    assert client.upsert("user", ["u"], [[0, 2]], [9]) == 1
    ids, scores, sequence = client.search("item", [[1, 0.5]], 2)
    assert (ids, scores.tolist(), sequence) == ([["c", "a"]], [[1.5, 1.0]], 3)
    assert client.search("item", [[1, 0.5]], 2, ["c"])[0] == [["a", "b"]]
    near = client.nearest("item", "user", "u", 10)
    assert near.found and sorted(near.ids[:2]) == ["b", "c"] and near.scores.tolist() == [2, 2, 0]
    assert client.nearest("item", "item", "a", 10).ids == ["c", "b"]  # not itself
    assert client.upsert("item", ["a", "b"], [[9, 9], [0, 0]], [0, 5], [False, True]) == 1
    assert client.stats() == {"item": {"rows": 2, "dim": 2, "sequence": 5}, "user": {"rows": 1, "dim": 2, "sequence": 9}, "newest_ts_ms": 0}


def test_nothing_known_yet(client):
    assert client.search("item", [[1, 1]], 5)[0] == [[]]
    near = client.nearest("item", "user", "nobody", 5)
    assert not near.found and near.ids == [] and len(near.scores) == 0


@pytest.mark.parametrize("k", [0, -1, 1001, 10**9, 1.5, True, "ten", None])
def test_k_out_of_bounds(client, k):
    with pytest.raises(Refused, match="k:"):
        client.search("item", [[1, 1]], k)
    with pytest.raises(Refused, match="k:"):
        client.nearest("item", "user", "u", k)


@pytest.mark.parametrize("vectors", [[[1, 1, 1]], [[1]], [[np.nan, 1]], [[np.inf, 1]], [[1e30, 1]]])
def test_bad_vectors_change_nothing(client, vectors):
    client.upsert("item", ["a"], [[1, 0]], [1])
    with pytest.raises(Refused, match="vectors"):
        client.search("item", vectors, 1)
    with pytest.raises(Refused, match="vectors"):
        client.upsert("item", ["a"], vectors, [2])
    assert client.search("item", [[1, 0]], 1)[1].tolist() == [[1]]


def test_other_bad_calls(client):
    for call in (lambda: client.upsert("item", ["a"], [[1, 0]], [-1]), lambda: client.upsert("item", [""], [[1, 0]], [1]),
                 lambda: client.upsert("item", ["x" * 300], [[1, 0]], [1]), lambda: client.search("", [[1, 0]], 1),
                 lambda: client.search("item", [[1, 0]], 1, ["x"] * 10_001), lambda: client.search("item", np.zeros((1025, 2)), 1)):
        with pytest.raises(Refused):
            call()
    with pytest.raises(BadMessage):
        client.upsert("item", ["a", "b"], [[1, 0]], [1, 2])


def test_fold_twice_is_fold_once_and_bad_records_are_left_out(service):
    tail = [record("a", [1, 0], 1), record("b", [0, 1], 2, ts_ms=50), record("a", [], 3, deleted=True), record("a", [2, 2], 2),
            record("c", [1, 2, 3], 4), record("d", [np.nan, 0], 5), record("e", [1, 1], 6), {"id": "f"},
            {**record("g", [0, 0], 1), "vector": b"123"}]
    assert service.fold_many(tail) == 4
    once, _ = service.spaces["item"].search(np.ones((1, 2), np.float32), 9)
    service.fold_many(tail)
    twice, _ = service.spaces["item"].search(np.ones((1, 2), np.float32), 9)
    assert once == twice == [["e", "b"]]
    assert service.newest_ts_ms == 50


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_the_role_folds_what_consume_reads_and_leaves_nothing():
    config = Config(ann={"address": f"127.0.0.1:{free_port()}", "http_port": free_port()}, model={"factors": 1})
    folded = threading.Event()

    def consume(fold_many, stop):
        fold_many([record(str(n), [n, 1], n) for n in range(200)])
        folded.set()
        stop.wait(30)

    stop = role.start(config, 0, consume)
    client = AnnClient(config.ann.address)
    assert folded.wait(10)
    assert client.search("item", [[1, 0]], 2)[0] == [["199", "198"]]
    client.close()
    stop()
    with pytest.raises(Unavailable):
        client.stats()
    client.close()
    assert not [thread for thread in threading.enumerate() if thread.name in ("vectors", "ann", "health")]
