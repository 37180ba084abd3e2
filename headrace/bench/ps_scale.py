"""100 M rows of 8 weights and 8 AdaGrad slots in two shard processes: memory a row, rows/s, a snapshot, and back after kill -9.

Beside it the hashing trick (Weinberger et al. 2009) with as many bytes, which keeps no keys and has more rows for that: what share of the
keys shares its row with another one, and how many rows/s it updates, in one process. All pushes go through the shards' logs. Bytes needed
are said, and looked for, before anything is made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from headrace.bench.kernels import hashed_update
from headrace.bench.ps_scale_child import DIM, PUSH, keys_of
from headrace.bench.result import Row

ROWS, ROWS_QUICK, SHARDS = 100_000_000, 30_000_000, 2
ROW_BYTES = 4 * 2 * DIM  # weights and slots
DISK_BYTES = ROW_BYTES + 8 + 8 + 4 * DIM + 16  # a snapshot of a row, and the log of its first push
MEMORY_BYTES = 150  # with a snapshot of one shard under way
UPDATES = 2000


class NoRoom(Exception):
    """The bench needs more memory or disk than there is; the message says how much of both."""


class Shard:
    """A child process and what it says."""

    def __init__(self, folder: Path, index: int, rows: int) -> None:
        self._began = time.perf_counter()
        self._process = subprocess.Popen([sys.executable, "-m", "headrace.bench.ps_scale_child", str(folder / str(index)), str(index),
                                          str(SHARDS), str(rows)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def told(self) -> dict[str, Any]:
        """Its next line; `wall`: seconds since it was asked, or began."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a shard process ended with {self._process.wait()}: out of memory?")
        found: dict[str, Any] = json.loads(line)
        return found | {"wall": time.perf_counter() - self._began}

    def ask(self, what: str) -> None:
        assert self._process.stdin is not None
        self._began = time.perf_counter()
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def measure(quick: bool) -> list[Row]:
    """Rows bytes, insert, update, lookup, snapshot, recovery, own_row. Raises NoRoom."""
    rows = ROWS_QUICK if quick else ROWS
    with tempfile.TemporaryDirectory(prefix="headrace-scale-") as temporary:
        folder = Path(temporary)
        _room(folder, rows)
        shards = [Shard(folder, index, rows) for index in range(SHARDS)]
        try:
            return _measured(folder, rows, shards)
        finally:
            for shard in shards:
                shard.kill()


def _measured(folder: Path, rows: int, shards: list[Shard]) -> list[Row]:
    before = [shard.told()["rss"] for shard in shards]
    loaded = _all(shards, "load")
    held = sum(one["rows"] for one in loaded)
    assert held == rows, "every key has its row"
    took = sum(one["rss"] for one in loaded) - sum(before)
    updated, looked = _all(shards, "update"), _all(shards, "lookup")
    written = []
    for shard in shards:  # one after the other: a snapshot is a second copy of a shard's rows in memory while it is made
        shard.ask("snapshot")
        written.append(shard.told())
    size = sum(one["done"] for one in written)
    for shard in shards:
        shard.kill()
    began = time.perf_counter()
    shards[:] = [Shard(folder, index, rows) for index in range(SHARDS)]
    back = [shard.told() for shard in shards]
    recovered_s = time.perf_counter() - began
    assert sum(one["rows"] for one in back) == rows, "and has it again"
    for shard in shards:
        shard.kill()
    read_s, copied_s = _plainly(folder)
    alone, per_s, places = _hashed(rows, took)
    note, hashed = f"{rows:,} rows in {SHARDS} processes", "hashing trick, a process"
    wrote_s = sum(one["wall"] for one in written)
    return [
        Row("bytes", rows * ROW_BYTES / took, "share", "weights and slots alone", 1.0, f"{note}: {took / rows:.1f} bytes a row,"
            f" {took / 1e9:.2f} GB resident, {sum(one['said'] for one in loaded) / 1e9:.2f} said by stats"),
        Row("insert", _rate(loaded), "rows/s", hashed, per_s, f"{note}, new keys, through the log"),
        Row("update", _rate(updated), "rows/s", hashed, per_s, f"{note}, known keys, through the log"),
        Row("lookup", _rate(looked), "rows/s", hashed, per_s, f"{note}; the peer's updates"),
        Row("snapshot", wrote_s, "s", "copy of its files, synced", copied_s, f"one shard after the other, {size / 1e9:.2f} GB,"
            f" {size / 1e9 / wrote_s:.2f} GB/s"),
        Row("recovery", recovered_s, "s", "plain read of the snapshots", read_s, f"both at once after kill -9,"
            f" {size / 1e9 / recovered_s:.2f} GB/s"),
        Row("own_row", 1.0, "share", "hashing trick", alone, f"keys that share their row with no other; the trick has {places:,} rows in as"
            " many bytes, without keys"),
    ]


def _plainly(folder: Path) -> tuple[float, float]:
    """Seconds of a plain read of all snapshots, and of a copy of them that is synced."""
    files = [file for file in folder.rglob("*") if file.is_file() and "snapshots" in file.parts]
    began = time.perf_counter()
    for file in files:
        with open(file, "rb", buffering=0) as held:
            while held.read(1 << 24):
                pass
    read_s = time.perf_counter() - began
    began, target = time.perf_counter(), folder / "copy"
    for file in files:
        with open(file, "rb", buffering=0) as held, open(target, "wb", buffering=0) as out:
            while data := held.read(1 << 24):
                out.write(data)
                os.fdatasync(out.fileno())
    return read_s, time.perf_counter() - began


def _all(shards: list[Shard], what: str) -> list[dict[str, Any]]:
    for shard in shards:
        shard.ask(what)
    return [shard.told() for shard in shards]


def _rate(told: list[dict[str, Any]]) -> float:
    """Rows/s of all processes together, by the clock."""
    return float(sum(one["done"] for one in told) / max(one["wall"] for one in told))


def _hashed(rows: int, took: int) -> tuple[float, float, int]:
    """(share of keys that have a row alone, updates/s, rows) of a table without keys of so many bytes."""
    places = took // ROW_BYTES
    used = np.zeros(places, np.uint8)
    table = np.zeros((places, 2 * DIM), np.float32)
    grads = np.random.default_rng(1).normal(size=(PUSH, DIM)).astype(np.float32)
    for start in range(0, rows, 1 << 20):
        numbers = _places(keys_of(np.arange(start, min(start + (1 << 20), rows))), places)
        np.add.at(used, numbers, np.where(used[numbers] < 2, 1, 0).astype(np.uint8))
    alone = int((used == 1).sum())
    random = np.random.default_rng(2)
    batches = [_places(keys_of(random.integers(0, rows, PUSH)), places) for _ in range(UPDATES)]
    for batch in batches[:10]:
        hashed_update(table, batch, grads, np.float32(0.05))
    began = time.perf_counter()
    for batch in batches:
        hashed_update(table, batch, grads, np.float32(0.05))
    return alone / rows, UPDATES * PUSH / (time.perf_counter() - began), places


def _places(keys: np.ndarray, places: int) -> np.ndarray:
    """int64[n] rows of keys: by the high bits of a mix that is not the shard's."""
    with np.errstate(over="ignore"):
        mixed = (keys ^ (keys >> np.uint64(31))) * np.uint64(0xD6E8FEB86659FD93)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return np.asarray(((mixed >> np.uint64(32)) * np.uint64(places)) >> np.uint64(32), np.int64)


def _room(folder: Path, rows: int) -> None:
    disk, memory = rows * DISK_BYTES, rows * MEMORY_BYTES
    free, available = shutil.disk_usage(folder).free, psutil.virtual_memory().available
    said = (f"{rows:,} rows need {disk / 1e9:.1f} GB of disk in {folder} ({free / 1e9:.1f} free) and {memory / 1e9:.1f} GB of memory"
            f" ({available / 1e9:.1f} available)")
    if free < disk or available < memory:
        raise NoRoom(f"{said}; --quick takes {ROWS_QUICK:,} rows, TMPDIR another disk")
    print(said, file=sys.stderr)
