"""The other side of the parameter server's benches, a process of its own: `python -m headrace.bench.ps_server FOLDER ROWS_MAX DIM [TTL_S]`
serves one shard with its log in FOLDER, says its port when it answers, and ends with stdin."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from headrace.config import Ps
from headrace.ps.recovery import Store
from headrace.ps.service import shard_verbs
from headrace.ps.spec import ModelSpec, TableSpec
from headrace.ps.warm import warm_kernels
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

RING = 1 << 22


def spec(dim: int, ttl_s: int = 0) -> ModelSpec:
    """One table of `dim` weights and as many AdaGrad slots."""
    return ModelSpec("bench", 1, (TableSpec("weights", dim=dim, optimizer="adagrad", init_scale=0.01, ttl_s=ttl_s),))


def main(folder: str, rows_max: str, dim: str, ttl_s: str = "0") -> None:
    """Serve until standard input ends."""
    specs = [spec(int(dim), int(ttl_s))]
    warm_kernels(specs)
    store = Store(Path(folder), specs, 0, 1, int(rows_max), RING, lambda: time.time_ns() // 1_000_000, 0, Ps().snapshot_deltas)
    owner = Owner("bench")
    store.turn = owner.call
    owner.every(0.1, store.shard.sweep)
    server = Server("127.0.0.1", 0, shard_verbs(store), owner)
    owner.start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()
    owner.stop()
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:5])
