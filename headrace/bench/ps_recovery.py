"""A shard of 10 M rows (16 weights, 16 AdaGrad slots) that is killed: how soon it answers again; and what its pushes feel while it works.

Half of the rows are in a snapshot when it is killed, the other half in the log alone. `first_pull`: from the new process's start to its
first answer; `caught_up`: to a new push, after the last acknowledged one was known again. The limit is a plain read of the same bytes, in
the same run, from the page cache. `pause.*`: the 99.9th percentile of pushes of 4,096 keys while a snapshot is taken, while rows that
have outlived their time go, and while every key is new, of that of pushes to rows that are there. `delta`: what a snapshot writes when a
hundredth of the rows were pushed since a full one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from headrace.bench.ps_rpc import CAUSES, DIM, KEYS, Offsets
from headrace.bench.result import Row
from headrace.ps.client import ParameterClient
from headrace.ps.snapshot import folders
from headrace.rpc.client import Client
from headrace.rpc.freshness import Newest

ROWS, ROWS_QUICK = 10_000_000, 200_000
PUSHES, PUSHES_QUICK = 3000, 300
TTL_S = 1000
READ_BYTES = 1 << 24


class Shard:
    """A shard process and its one client."""

    def __init__(self, folder: Path, rows_max: int, ttl_s: int = 0) -> None:
        began = time.perf_counter()
        command = [sys.executable, "-m", "headrace.bench.ps_server", str(folder), str(rows_max), str(DIM), str(ttl_s)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = f"127.0.0.1:{int(self.process.stdout.readline())}"
        self.client, self.began = ParameterClient([self.address], timeout_s=600), began

    def push(self, causes: Offsets, keys: np.ndarray, grads: np.ndarray, at_s: int = 0) -> str:
        taken = causes.take(CAUSES)
        newest = Newest(1, 0, int(taken.offset[-1]), 1000 * at_s) if at_s else None
        done = self.client.push("bench", "click", taken, lambda index: {"weights": (keys, grads)}, newest)
        return "applied" if done.applied else "duplicate"

    def snapshot(self, aside: bool = False) -> None:
        """In its turn, or beside, as the timer of a shard does: begun unless one is being written."""
        client = Client(self.address, 600)
        try:
            client.call("snapshot", {"aside": aside})
        finally:
            client.close()

    def kill(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def running(folder: Path, rows_max: int, ttl_s: int = 0) -> Iterator[Shard]:
    """A shard that is killed in the end."""
    shard = Shard(folder, rows_max, ttl_s)
    try:
        yield shard
    finally:
        shard.kill()


def measure(quick: bool) -> list[Row]:
    """Rows first_pull, caught_up (s), read (GB/s), delta (MB), pause.snapshot, pause.expiry, pause.growth (ms)."""
    rows, pushes = (ROWS_QUICK, PUSHES_QUICK) if quick else (ROWS, PUSHES)
    random = np.random.default_rng(1)
    keys = random.permutation(np.unique(random.integers(0, 1 << 64, rows + rows // 100, np.uint64))[:rows])
    grads = random.normal(size=(KEYS, DIM)).astype(np.float32)
    with tempfile.TemporaryDirectory() as temporary:
        folder, causes = Path(temporary) / "0", Offsets()
        return [*_recovered(folder, causes, keys, grads), *_paused(folder, causes, keys, grads, pushes)]


def _recovered(folder: Path, causes: Offsets, keys: np.ndarray, grads: np.ndarray) -> list[Row]:
    half = len(keys) // 2
    with running(folder, 2 * len(keys)) as shard:
        for start in range(0, len(keys), KEYS):
            part = keys[start : start + KEYS]
            shard.push(causes, part, grads[: len(part)])
            if start <= half < start + KEYS:
                shard.snapshot()
        expected = shard.client.pull("bench", "weights", keys[:KEYS])
    held = [path for path in folder.rglob("*") if path.is_file()]
    size, read_s = sum(path.stat().st_size for path in held), _read(held)
    with running(folder, 2 * len(keys)) as shard:
        found = shard.client.pull("bench", "weights", keys[:KEYS])
        first_s = time.perf_counter() - shard.began
        assert (found[0] == expected[0]).all() and found[1] == expected[1], "what was acknowledged is there"
        again, last = Offsets(), keys[-(len(keys) % KEYS or KEYS) :]
        again.take(causes.taken - CAUSES)
        assert shard.push(again, last, grads[: len(last)]) == "duplicate", "and its causes are known"
        assert shard.push(causes, keys[:KEYS], grads) == "applied"
        caught_s = time.perf_counter() - shard.began
        full, full_s = _written(folder, shard)
        for start in range(0, len(keys) // 100, KEYS):
            part = keys[start : start + KEYS]
            shard.push(causes, part, grads[: len(part)])
        delta, delta_s = _written(folder, shard)
    note = f"{len(keys):,} rows, {size / 1e9:.2f} GB: half in a snapshot, half in the log alone"
    return [Row("first_pull", first_s, "s", "plain read of the bytes", read_s, note),
            Row("caught_up", caught_s, "s", "plain read of the bytes", read_s, note),
            Row("read", size / 1e9 / first_s, "GB/s", "plain read of the bytes", size / 1e9 / read_s, note),
            Row("delta", delta / 1e6, "MB", "a full snapshot", full / 1e6,
                f"1 % of the rows pushed since; {delta_s:.1f} s of {full_s:.1f}")]


def _written(folder: Path, shard: Shard) -> tuple[int, float]:
    """Bytes of the snapshot that is made now, without those that it shares with others, and the seconds."""
    began = time.perf_counter()
    shard.snapshot()
    _, newest = folders(folder / "snapshots")[-1]
    return sum(file.stat().st_size for file in newest.iterdir() if file.stat().st_nlink == 1), time.perf_counter() - began


def _read(files: list[Path]) -> float:
    """Seconds of a plain read, the second one: from the page cache, as the shard's."""
    buffer, took = bytearray(READ_BYTES), 0.0
    for _ in range(2):
        began = time.perf_counter()
        for path in files:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        took = time.perf_counter() - began
    return took


def _paused(folder: Path, causes: Offsets, keys: np.ndarray, grads: np.ndarray, pushes: int) -> list[Row]:
    random, at_s = np.random.default_rng(2), 10_000
    known = [keys[random.integers(0, len(keys) - KEYS) :][:KEYS] for _ in range(256)]
    fresh = np.random.default_rng(3)
    found: dict[str, np.ndarray] = {}
    with running(folder, 4 * len(keys), TTL_S) as shard:
        def to_known(i: int) -> None:
            shard.push(causes, known[i % len(known)], grads, at_s)

        def to_new(i: int) -> None:
            shard.push(causes, np.unique(fresh.integers(0, 1 << 64, KEYS, np.uint64)), grads, at_s)

        _times(to_known, pushes // 10)
        found["nothing"] = _times(to_known, pushes)
        with _beside(lambda: shard.snapshot(aside=True)):
            found["snapshot"] = _times(to_known, pushes)
        found["growth"] = _times(to_new, pushes // 3)
        at_s += TTL_S + 1  # what was pushed before is too old from the next push on
        found["expiry"] = _times(to_known, pushes)
    base = float(np.percentile(found["nothing"], 99.9))
    return [Row(f"pause.{what}", float(np.percentile(found[what], 99.9)), "ms", "without", base,
                f"p99.9 of {len(found[what]):,} pushes of {KEYS:,} keys; median {np.median(found[what]):.2f}, worst"
                f" {found[what].max():.0f}")
            for what in ("snapshot", "expiry", "growth")]


def _times(work: Callable[[int], object], count: int) -> np.ndarray:
    """Milliseconds of each of `count` calls."""
    took = np.empty(count)
    for i in range(count):
        began = time.perf_counter()
        work(i)
        took[i] = 1000 * (time.perf_counter() - began)
    return took


@contextmanager
def _beside(work: Callable[[], object]) -> Iterator[None]:
    """`work` over and over on a thread of its own during the block."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(0.2):
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

