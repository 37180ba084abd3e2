"""What the tests of ps/ share: specs, causes, a store in a folder, a shard behind Flight in this process or in one of its own."""

from __future__ import annotations

import fcntl
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from headrace.ps.recovery import Store
from headrace.ps.service import shard_verbs
from headrace.ps.spec import ModelSpec, TableSpec
from headrace.rpc.causes import Causes
from headrace.rpc.errors import Unavailable
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

RING = 1 << 16


def spec(version=1, **weights):
    table = {"name": "weights", "dim": 3, "optimizer": "adagrad", "init_scale": 0.1, "served": True, **weights}
    return ModelSpec("fm", version, (TableSpec(**table), TableSpec("counts", "int64", 1, "sum")))


def causes(offsets, partition=0, source=7):
    n = len(offsets)
    return Causes(np.full(n, source, np.int32), np.full(n, partition, np.int32), np.asarray(offsets, np.int64))


def keys_of(values):
    return np.asarray(values, np.uint64)


def push_of(rng, dim=3, space=300, rows=20):
    """Random tables of a push: distinct keys, gradients of weights, and counts."""
    keys = np.unique(rng.integers(0, space, rows).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return {"weights": (keys, rng.normal(size=(len(keys), dim)).astype(np.float32)), "counts": (keys, np.ones((len(keys), 1), np.int64))}


class ListLog:
    """An owners' log (ps/owners.py) in memory; `away`: it cannot be reached; `mute(record)`: it takes a record, and its answer is lost."""

    def __init__(self):
        self.records, self.away, self.mute = [], False, lambda record: False

    def append(self, record):
        self._reach()
        self.records.append(dict(record))
        if self.mute(record):
            raise Unavailable("no answer of the owners' log")

    def read(self, start):
        self._reach()
        return self.records[start:], len(self.records)

    def _reach(self):
        if self.away:
            raise Unavailable("the owners' log is away")


class FileLog:
    """An owners' log in a file, for members in processes of their own."""

    def __init__(self, path):
        self._path = Path(path)
        self._path.touch()

    def append(self, record):
        with self._path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(record) + "\n")

    def read(self, start):
        with self._path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            lines = file.read().splitlines()
        return [json.loads(line) for line in lines[start:]], len(lines)


@contextmanager
def store(folder, specs=None, index=0, shards=1, rows_max=5000, now_ms=lambda: 1, deltas=0):
    held = Store(Path(folder), specs or [spec()], index, shards, rows_max, RING, now_ms, 0, deltas)
    try:
        yield held
    finally:
        held.close()


@contextmanager
def served(verbs, port=0):
    """(server, owner) that answer `verbs` on a free port. Close clients first: Flight waits for open streams."""
    owner = Owner("test")
    server = Server("127.0.0.1", port, verbs, owner)
    owner.start()
    try:
        yield server, owner
    finally:
        server.shutdown()
        owner.stop()


def serve_for_ever(folder, index, shards, port):
    """In a process of its own: print the port, serve until killed."""
    held = Store(Path(folder), [spec()], index, shards, 5000, RING, lambda: 1)
    owner = Owner("shard")
    server = Server("127.0.0.1", port, shard_verbs(held), owner)
    owner.start()
    print(json.dumps(server.port), flush=True)
    sys.stdin.read()  # the test's end closes it
    import os

    os._exit(0)


if __name__ == "__main__":
    serve_for_ever(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
