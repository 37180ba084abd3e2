"""A process with a table of its own, for bench ps.table: `python -m headrace.bench.ps_table_child ROWS CALLS` says the bytes a row that it
has and those of its memory, then answers each line of stdin (lookup, update) with rows/s by the clock, and ends with stdin."""

from __future__ import annotations

import sys
import time

import numpy as np
import psutil

from headrace.bench.ps_table import DIM, filled, uniform
from headrace.ps.spec import TableSpec
from headrace.ps.table import Table


def main(rows: int, calls: int) -> None:
    """Serve lines until standard input ends."""
    random = np.random.default_rng(1)
    grads = random.normal(size=(4096, DIM)).astype(np.float32)
    small = Table(TableSpec("warm", dim=DIM, optimizer="adagrad"), 100_000)  # what is compiled or loaded once is not the table's
    for _ in range(2):
        small.push(np.arange(4096, dtype=np.uint64), grads)
        small.pull(np.arange(4096, dtype=np.uint64))
    keys = np.unique(random.integers(0, 1 << 64, rows + rows // 100, np.uint64))[:rows]
    keys = random.permutation(keys)
    before = psutil.Process().memory_info().rss
    table = filled(keys, grads)
    took = psutil.Process().memory_info().rss - before
    batches = uniform(keys, calls, random)
    for work in ("lookup", "update"):
        run(table, work, batches, grads)
    print(table.bytes / len(table), took / len(table), table.load, flush=True)
    for line in sys.stdin:
        print(run(table, line.strip(), batches, grads), flush=True)


def run(table: Table, work: str, batches: list[np.ndarray], grads: np.ndarray) -> float:
    """Rows/s of all batches, by the clock."""
    began = time.perf_counter()
    for keys in batches:
        if work == "lookup":
            table.pull(keys)
        else:
            table.push(keys, grads[: len(keys)])
    return sum(map(len, batches)) / (time.perf_counter() - began)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
