"""A shard's table of 10 M rows, 16 weights and 16 AdaGrad slots each; of the random cache lines that a core reads over the same bytes.

A row lies in two lines and its bucket in a third, so the limit is lines/s divided by 3: for a lookup (which reads two of them) and for an
update (which reads all three and writes two of them back). Calls are as the trainer makes them: distinct keys, at most 4,096.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from headrace.bench.kernels import read_lines
from headrace.bench.result import Row
from headrace.ps.index import CALL_ROWS
from headrace.ps.spec import TableSpec
from headrace.ps.table import Table

DIM = 16
ROWS, ROWS_QUICK = 10_000_000, 1_000_000
CALLS, CALLS_QUICK = 512, 128
PIECE = 64  # calls that are timed together: their lines are more than a cache holds
TURNS = 5
LINES_A_ROW = 3
ZIPF = 1.1


def measure(quick: bool) -> list[Row]:
    """Rows lookup.uniform, update.uniform, lookup.zipf, update.zipf: rows/s of one core's time, the best of pieces that take turns."""
    rows, calls = (ROWS_QUICK, CALLS_QUICK) if quick else (ROWS, CALLS)
    random = np.random.default_rng(1)
    keys = np.unique(random.integers(0, 1 << 64, rows + rows // 100, np.uint64))
    keys = random.permutation(keys)[:rows]
    table = Table(TableSpec("weights", dim=DIM, optimizer="adagrad"), 2 * rows)  # address space: nothing is counted against a full arena
    grads = random.normal(size=(CALL_ROWS, DIM)).astype(np.float32)
    for start in range(0, rows, CALL_ROWS):
        part = keys[start : start + CALL_ROWS]
        table.push(part, grads[: len(part)])
    drawn = {"uniform": _uniform(keys, calls, random), "zipf": _zipf(keys, calls, random)}
    lines = table.stored()[1].view(np.uint64).reshape(-1, 8)
    reads = PIECE * CALL_ROWS * LINES_A_ROW
    read_lines(lines, 1000, 0)

    rates: dict[str, float] = {}
    for turn in range(TURNS):
        table.clear_changed(table.changed().copy())  # as after a publication: a row's first change is noted
        for start in range(0, calls, PIECE):
            _keep(rates, "lines", reads, partial(read_lines, lines, reads, turn * calls + start))
            for name, batches in drawn.items():
                piece, other = batches[start : start + PIECE], batches[start - PIECE :][:PIECE]  # no row is warm from the lookup before
                _keep(rates, f"lookup.{name}", sum(map(len, piece)), partial(_lookup, table, piece))
                _keep(rates, f"update.{name}", sum(map(len, other)), partial(_update, table, other, grads))
    note = f"{rows:,} rows of {DIM} floats and {DIM} slots, {calls} calls of at most {CALL_ROWS:,} distinct keys, one core"
    return [Row(name, rates[name], "rows/s", "random cache lines read / 3", rates["lines"] / LINES_A_ROW, note)
            for name in ("lookup.uniform", "update.uniform", "lookup.zipf", "update.zipf")]


def _uniform(keys: np.ndarray, calls: int, random: np.random.Generator) -> list[np.ndarray]:
    return [_distinct(keys[random.integers(0, len(keys), CALL_ROWS)]) for _ in range(calls)]


def _zipf(keys: np.ndarray, calls: int, random: np.random.Generator) -> list[np.ndarray]:
    """The r-th key with probability ~ r^-1.1; keys came in no order of their ranks, so hot rows are no neighbours."""
    cumulated = np.cumsum(np.arange(1, len(keys) + 1, dtype=np.float64) ** -ZIPF)
    ranked = random.permutation(keys)
    return [_distinct(ranked[np.searchsorted(cumulated, random.random(CALL_ROWS) * cumulated[-1])]) for _ in range(calls)]


def _distinct(keys: np.ndarray) -> np.ndarray:
    """Each once, in order of appearance."""
    return keys[np.sort(np.unique(keys, return_index=True)[1])]


def _lookup(table: Table, batches: Iterable[np.ndarray]) -> None:
    for keys in batches:
        table.pull(keys)


def _update(table: Table, batches: Iterable[np.ndarray], grads: np.ndarray) -> None:
    for keys in batches:
        table.push(keys, grads[: len(keys)])


def _keep(rates: dict[str, float], name: str, count: int, work: Callable[[], Any]) -> None:
    """The best rate so far of `work`, which does `count`, by this thread's processor time: other processes may have the core too."""
    started = time.thread_time()
    work()
    rates[name] = max(rates.get(name, 0.0), count / (time.thread_time() - started))
