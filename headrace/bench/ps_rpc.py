"""Pulls and pushes of rows of 16 floats through ParameterClient to one shard process, of Redis's MGET and MSET of values as wide.

Both sides are processes of their own on this machine and have several calls on their way: the client two (two threads), Redis four
(pipelined over a unix socket, requests made beforehand, answers only counted). The shard logs each push before it answers and applies
AdaGrad; Redis keeps nothing on disk and overwrites. Pieces of each take turns, and of each the best counts.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from headrace.bench.redis_peer import OK, answer_bytes, ask, mget, mset, redis
from headrace.bench.result import Row
from headrace.bench.serving import serving
from headrace.ps.client import ParameterClient
from headrace.rpc.causes import Causes

DIM = 16
KEYS, FEW = 4096, 256
CAUSES = 256
ROWS, ROWS_QUICK = 1_000_000, 100_000
CALLS, TURNS, TURNS_QUICK = 64, 12, 3
IN_FLIGHT = 2
PULLS = 2000


def measure(quick: bool) -> list[Row]:
    """Rows pull.4096 and push.4096, rows/s, of Redis; pull.256.p99, ms, beside pushes at full rate."""
    rows, turns = (ROWS_QUICK, TURNS_QUICK) if quick else (ROWS, TURNS)
    random = np.random.default_rng(1)
    keys = np.unique(random.integers(0, 1 << 64, rows, np.uint64))
    batches = [random.choice(keys, KEYS, replace=False) for _ in range(CALLS)]
    grads = random.normal(size=(KEYS, DIM)).astype(np.float32)
    rates: dict[str, float] = {}
    with (tempfile.TemporaryDirectory() as folder, redis() as peer,
          serving("headrace.bench.ps_server", folder, str(2 * rows), str(DIM)) as address):
        clients, offset = [ParameterClient([address]) for _ in range(IN_FLIGHT)], Offsets()
        for start in range(0, len(keys), KEYS):
            part = keys[start : start + KEYS]
            push(clients[0], offset, part, grads[: len(part)])
            ask(peer, [mset(part, grads[: len(part)])], len(OK))
        gets, sets = [mget(batch) for batch in batches], [mset(batch, grads) for batch in batches]
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            for _ in range(turns):
                keep(rates, "pull", partial(spread, threads, clients, batches, pull))
                keep(rates, "mget", partial(ask, peer, gets, answer_bytes(KEYS, DIM)))
                keep(rates, "push", partial(spread, threads, clients, batches, lambda client, batch: push(client, offset, batch, grads)))
                keep(rates, "mset", partial(ask, peer, sets, len(OK)))
        pulls = PULLS // 10 if quick else PULLS
        alone, late = times(clients[0], keys, pulls), beside_pushes(clients, offset, keys, grads, pulls)
        for client in clients:
            client.close()
    note = f"{len(keys):,} rows of {DIM} floats, calls of {KEYS:,} distinct keys, best of {turns} turns of {CALLS} calls"
    return [Row("pull.4096", rates["pull"], "rows/s", "redis.mget", rates["mget"], note),
            Row("push.4096", rates["push"], "rows/s", "redis.mset", rates["mset"], f"{note}; {CAUSES} causes a push, logged"),
            *(Row(f"pull.256.p{q}", float(np.percentile(late, q)), "ms", "without pushes", float(np.percentile(alone, q)),
                  f"{pulls} pulls one at a time, beside pushes at full rate") for q in (50, 99))]


class Offsets:
    """Fresh causes of a source for each push, for several threads."""

    def __init__(self, source: int = 1) -> None:
        self._source, self._next, self._lock = source, 0, threading.Lock()

    @property
    def taken(self) -> int:
        return self._next

    def take(self, count: int) -> Causes:
        with self._lock:
            self._next += count
            first = self._next - count
        return Causes(np.full(count, self._source, np.int32), np.zeros(count, np.int32), np.arange(first, first + count))


def pull(client: ParameterClient, keys: np.ndarray) -> None:
    client.pull("bench", "weights", keys)


def push(client: ParameterClient, offset: Offsets, keys: np.ndarray, grads: np.ndarray) -> None:
    client.push("bench", "click", offset.take(CAUSES), lambda index: {"weights": (keys, grads)})


def spread(threads: ThreadPoolExecutor, clients: list[ParameterClient], batches: list[np.ndarray],
           call: Callable[[ParameterClient, np.ndarray], object]) -> None:
    """Each client calls for its share of `batches`, on a thread of its own."""
    def work(which: int) -> None:
        for batch in batches[which :: len(clients)]:
            call(clients[which], batch)

    for _ in threads.map(work, range(len(clients))):
        pass


def beside_pushes(clients: list[ParameterClient], offset: Offsets, keys: np.ndarray, grads: np.ndarray, pulls: int) -> np.ndarray:
    """Milliseconds of pulls of 256 keys by one client while the other pushes without a pause."""
    over = threading.Event()

    def pushing() -> None:
        own = np.random.default_rng(3)
        while not over.is_set():
            at = own.integers(0, len(keys) - KEYS)
            push(clients[1], offset, keys[at : at + KEYS], grads)

    thread = threading.Thread(target=pushing, name="pushes")
    thread.start()
    try:
        return times(clients[0], keys, pulls)
    finally:
        over.set()
        thread.join()


def times(client: ParameterClient, keys: np.ndarray, pulls: int) -> np.ndarray:
    """Milliseconds of each pull of 256 keys."""
    random, some, took = np.random.default_rng(2), keys[:: max(1, len(keys) // 65536)], np.empty(pulls)
    for i in range(pulls):
        few = random.choice(some, FEW, replace=False)
        began = time.perf_counter()
        client.pull("bench", "weights", few)
        took[i] = 1000 * (time.perf_counter() - began)
    return took


def keep(rates: dict[str, float], name: str, work: Callable[[], object]) -> None:
    """The best rate so far, in rows/s of CALLS calls."""
    began = time.perf_counter()
    work()
    rates[name] = max(rates.get(name, 0.0), CALLS * KEYS / (time.perf_counter() - began))
