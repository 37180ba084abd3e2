"""When a push is answered, and what becomes of a log that is too long."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from headrace.ps.client import ParameterClient
from headrace.ps.service import shard_verbs
from headrace.rpc.errors import Unavailable
from tests.ps import worlds

KEYS = np.arange(50, dtype=np.uint64)


def push(client, offset):
    grads = np.ones((len(KEYS), 3), np.float32)
    return client.push("fm", "click", worlds.causes([offset]), lambda index: {"weights": (KEYS, grads)})


def test_a_push_is_answered_when_the_disk_has_it_and_pulls_do_not_wait_for_that(tmp_path, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def sync(fd):
        begun.set()
        assert go.wait(30)

    with worlds.store(tmp_path) as store, worlds.served(shard_verbs(store, durable=True)) as (server, _), ThreadPoolExecutor(1) as thread:
        pushing, pulling = (ParameterClient([f"127.0.0.1:{server.port}"]) for _ in range(2))
        monkeypatch.setattr(os, "fdatasync", sync)
        pushed = thread.submit(push, pushing, 1)
        assert begun.wait(30)
        assert pulling.pull("fm", "weights", KEYS)[1] == 1 and not pushed.done()
        go.set()
        assert pushed.result(30).applied == 1
        pushing.close()
        pulling.close()


def test_a_push_that_the_disk_refuses_is_not_acknowledged(tmp_path, monkeypatch):
    def fail(fd):
        raise OSError(5, "Input/output error")

    with worlds.store(tmp_path) as store, worlds.served(shard_verbs(store, durable=True)) as (server, _):
        client = ParameterClient([f"127.0.0.1:{server.port}"], timeout_s=0.5)
        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(Unavailable, match="not safe on the disk"):
            push(client, 1)
        monkeypatch.undo()
        with pytest.raises(Unavailable, match="could not be synced"):
            push(client, 2)
        client.close()


def test_a_log_that_is_too_long_has_a_snapshot_made_and_pushes_wait_until_it_is_short(tmp_path):
    with closing(worlds.Store(tmp_path, [worlds.spec()], 0, 1, 5000, worlds.RING, lambda: 1, 40_000)) as store:
        rng, paces = np.random.default_rng(1), []
        aside = store.snapshot_aside
        for turn in range(90):
            store.shard.push("fm", "click", worlds.causes([turn]), worlds.push_of(rng, rows=40))
            store.snapshot_aside = aside if turn >= 45 else lambda: None  # slower than the log until then
            store.keep_log_short()
            store._wait()
            paces.append(store.pace_s())
        assert paces[0] == 0 and paces[:45] == sorted(paces[:45]) and paces[44] > 0.2
        assert min(paces[45:]) == 0 and store.snapshotted > 45 and store.shard.log.size_bytes < 60_000
