"""A shard process of bench ps.scale: `python -m headrace.bench.ps_scale_child FOLDER INDEX SHARDS ROWS` opens its folder, says how many
rows it has found, and answers each line of standard input (load, update, lookup, snapshot) with a line of JSON; it ends with stdin."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from headrace.ps import kernels
from headrace.ps.index import kernel_input
from headrace.ps.recovery import Store
from headrace.ps.shard import shard_of
from headrace.ps.spec import ModelSpec, TableSpec
from headrace.rpc.causes import Causes

DIM, PUSH, RING = 8, 4096, 1 << 22
CALLS = 2000
SPEC = ModelSpec("bench", 1, (TableSpec("weights", dim=DIM, optimizer="adagrad", init_scale=0.01),))
ODD = np.uint64(0x9E3779B97F4A7C15)


def keys_of(numbers: np.ndarray) -> np.ndarray:
    """uint64[n] distinct keys of distinct int64[n]."""
    with np.errstate(over="ignore"):
        return kernel_input((numbers.astype(np.uint64) + np.uint64(1)) * ODD)


def mine(index: int, shards: int, rows: int) -> Iterator[np.ndarray]:
    """The keys of a shard among `rows` keys, in pushes."""
    held: list[np.ndarray] = []
    waiting = 0
    for start in range(0, rows, 1 << 18):
        keys = keys_of(np.arange(start, min(start + (1 << 18), rows)))
        keys = keys[shard_of(kernels.slots_of(keys), shards) == index]
        held.append(keys)
        waiting += len(keys)
        if waiting >= PUSH:
            joined = np.concatenate(held)
            stop = waiting - waiting % PUSH
            yield from (joined[at : at + PUSH] for at in range(0, stop, PUSH))
            held, waiting = [joined[stop:]], waiting - stop
    yield from (keys for keys in held if len(keys))


def main(folder: str, index: int, shards: int, rows: int) -> None:
    """Serve lines until standard input ends."""
    began, process = time.perf_counter(), psutil.Process()
    store = Store(Path(folder), [SPEC], index, shards, rows // shards * 5 // 4 + 1_000_000, RING, lambda: time.time_ns() // 1_000_000)
    shard, table = store.shard, store.shard.tables["bench", "weights"]
    grads = np.random.default_rng(1).normal(size=(PUSH, DIM)).astype(np.float32)
    one = np.zeros(1, np.int32)

    def push(keys: np.ndarray) -> None:
        causes = Causes(one, one, np.array([shard.sequence], np.int64))
        shard.push("bench", "click", causes, {"weights": (keys, grads[: len(keys)])})

    def say(**found: float) -> None:
        print(json.dumps({"rows": len(table), "seconds": time.perf_counter() - began, "rss": process.memory_info().rss,
                          "said": table.bytes, **found}), flush=True)

    some: list[np.ndarray] = []
    say()
    for line in sys.stdin:
        began = time.perf_counter()
        done = 0
        if line.strip() == "load":
            for keys in mine(index, shards, rows):
                push(keys)
                if len(some) < CALLS and shard.sequence % max(1, rows // shards // PUSH // CALLS) == 0:
                    some.append(keys)  # calls to come name keys from all over the table
                done += len(keys)
        elif line.strip() == "snapshot":
            store.snapshot()
            done = sum(file.stat().st_size for file in (store.folder / "snapshots").rglob("*") if file.is_file())
        else:
            mixed = np.random.default_rng(2).permutation(np.concatenate(some))
            for at in range(0, len(mixed) - PUSH, PUSH):
                if line.strip() == "update":
                    push(mixed[at : at + PUSH])
                else:
                    table.pull(mixed[at : at + PUSH])
                done += PUSH
        say(done=done)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
