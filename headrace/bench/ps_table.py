"""A shard's table at a load of 0.8: 13.4 M rows, 16 weights and 16 AdaGrad slots each; of the random cache lines that a core reads over the
same bytes.

A row lies in two lines and its bucket in a third, so the limit is lines/s divided by 3: for a lookup (which reads two of them) and for an
update (which reads all three and writes two of them back). Calls are as the trainer makes them: distinct keys, at most 4,096.

The rows .two are of two processes with a table each, at once, by the clock, of twice what one of them does alone in the same run. `bytes`:
payload (key, weights, slots) of a row, of the process's memory by which it grew.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from headrace.bench.kernels import read_lines
from headrace.bench.result import Row
from headrace.ps.index import CALL_ROWS
from headrace.ps.spec import TableSpec
from headrace.ps.table import Table

DIM = 16
ROWS, ROWS_QUICK = int(0.798 * 2**24), int(0.798 * 2**20)
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
    grads = random.normal(size=(CALL_ROWS, DIM)).astype(np.float32)
    table = filled(keys, grads)
    drawn = {"uniform": uniform(keys, calls, random), "zipf": _zipf(keys, calls, random)}
    lines = table.arrays().rows.view(np.uint64).reshape(-1, 8)
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
    note = f"{rows:,} rows of {DIM} floats and {DIM} slots, load {table.load:.2f}, {calls} calls of at most {CALL_ROWS:,} distinct keys"
    del table, lines, drawn
    return [*(Row(name, rates[name], "rows/s", "random cache lines read / 3", rates["lines"] / LINES_A_ROW, note)
            for name in ("lookup.uniform", "update.uniform", "lookup.zipf", "update.zipf")), *_two(rows, calls, quick)]


def _two(rows: int, calls: int, quick: bool) -> list[Row]:
    """Two processes with a table each: alone and at once in turns, the best of each."""
    command = [sys.executable, "-m", "headrace.bench.ps_table_child", str(rows), str(calls)]
    with ExitStack() as opened:
        children = [opened.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
                    for _ in range(2)]
        said = [[float(one) for one in _line(child).split()] for child in children]
        alone, both = dict.fromkeys(("lookup", "update"), 0.0), dict.fromkeys(("lookup", "update"), 0.0)
        for _ in range(2 if quick else TURNS):
            for work in alone:
                alone[work] = max(alone[work], *(_asked(child, work) for child in children))
                for child in children:
                    _tell(child, work)
                both[work] = max(both[work], sum(float(_line(child)) for child in children))
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
    payload, (counted, took, load) = 8 + 8 * DIM, said[0]
    note = f"load {load:.2f}, by the clock"
    return [*(Row(f"{work}.two", both[work], "rows/s", "twice one process", 2 * alone[work], note) for work in alone),
            Row("bytes", payload, "bytes a row", "memory that a row takes", took, f"load {load:.2f}; stats() says {counted:.0f}")]


def _tell(child: subprocess.Popen[str], work: str) -> None:
    assert child.stdin is not None
    child.stdin.write(f"{work}\n")
    child.stdin.flush()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, "a child ended: its error stands above"
    return line


def _asked(child: subprocess.Popen[str], work: str) -> float:
    _tell(child, work)
    return float(_line(child))


def filled(keys: np.ndarray, grads: np.ndarray) -> Table:
    """A table that has been pushed uint64[n] keys once, all of it published."""
    table = Table(TableSpec("weights", dim=DIM, optimizer="adagrad", served=True), len(keys))
    for start in range(0, len(keys), CALL_ROWS):
        part = keys[start : start + CALL_ROWS]
        table.push(part, grads[: len(part)])
        if start % (64 * CALL_ROWS) == 0:
            table.clear_changed(table.changed().copy())
    table.clear_changed(table.changed().copy())
    return table


def uniform(keys: np.ndarray, calls: int, random: np.random.Generator) -> list[np.ndarray]:
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
