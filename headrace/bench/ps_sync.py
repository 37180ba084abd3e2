"""How soon what training has pushed is served: two shards, a real broker and two replicas, each a process of its own on this machine.

A client pushes as training does, 256 samples of some 4,096 distinct keys of rows of 16 with the sums of squares and the counts: first as
fast as the shards answer, then at a half and at nine tenths of that. Beside it markers, each a key that nobody else pushes, in every slot
in turn: the clock starts when a marker's push is acknowledged, and stops at each replica when the row there is that or a newer one. Then
the broker is stopped under pushes and started again; when it answers pushes end, and every replica must come to the shards' own digests.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headrace.bench.ps_rpc import CAUSES, KEYS, Offsets
from headrace.bench.ps_sync_stack import DIM, Broker, processes
from headrace.bench.result import Row
from headrace.config import Config
from headrace.digests import digests
from headrace.goals import GOALS_MS
from headrace.ps import kernels
from headrace.ps.client import ParameterClient
from headrace.ps.index import kernel_input
from headrace.ps.table import SLOTS
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError

SPACE, SPACE_QUICK = 400_000, 50_000
BATCHES = 64
WARM_S, WARM_QUICK_S = 8.0, 2.0
FULL_S, FULL_QUICK_S = 10.0, 3.0
PHASE_S, PHASE_QUICK_S = 30.0, 5.0
AWAY_S, AWAY_QUICK_S = 60.0, 10.0
MARK_EVERY_S, POLL_S = 0.05, 0.001
LOST_S = 60.0
CONVERGED_S = 300.0
GOAL_MS = GOALS_MS["serving_row"]


def measure(quick: bool) -> list[Row]:
    """Rows pushed.highest (rows/s), half and full .p50 and .p99 (ms from an acknowledgement to the row of a replica), lost (markers never
    served), away.pushed (rows/s while the broker is away), away.p99 and away.worst (ms of a push then), converged_s, and differing (slots
    of replicas that are not the shards', at the end)."""
    space, warm_s, full_s, phase_s, away_s = ((SPACE_QUICK, WARM_QUICK_S, FULL_QUICK_S, PHASE_QUICK_S, AWAY_QUICK_S) if quick else
                                              (SPACE, WARM_S, FULL_S, PHASE_S, AWAY_S))
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, processes(Path(folder)) as (config, kafka):
        training = Training(config, space)
        with closing(training), closing(Markers(config)) as markers:
            training.run(warm_s)
            took = training.run(full_s)
            highest = training.rows * len(took) / float(took.sum() / 1000)
            lost, rows = 0, [Row("pushed.highest", highest, "rows/s", note=f"one client, {training.rows:,.0f} rows a push, {space:,} keys;"
                                                                         f" push p50 {np.median(took):.1f} ms")]
            for name, share in (("half", 0.5), ("full", 0.9)):
                _converged(config)
                with training.beside(share * highest) as pushed:
                    served = markers.run(phase_s)
                lost += markers.lost
                note = f"{len(served)} readings of markers at {pushed.rate:,.0f} rows/s, {share:.0%} of the highest wanted"
                rows += [Row(f"{name}.p{q}", float(np.percentile(served, q)), "ms", "goal of p99", GOAL_MS if q == 99 else None, note)
                         for q in (50, 99)]
            rows += _away(config, kafka, training, 0.5 * highest, away_s)
        return [*rows[:5], Row("lost", lost, "markers", note=f"not served within {LOST_S:.0f} s"), *rows[5:]]


def _away(config: Config, kafka: Broker, training: Training, rate: float, away_s: float) -> list[Row]:
    _converged(config)
    with training.beside(rate) as pushed:
        kafka.stop()
        before = len(pushed.took)
        time.sleep(away_s)
        took = np.array(pushed.took[before:])
        began = time.monotonic()
        kafka.start()
    differing, converged_s = _converged(config), time.monotonic() - began
    note = f"broker away for {away_s:.0f} s"
    return [Row("away.pushed", training.rows * len(took) / away_s, "rows/s", "asked", rate, note),
            Row("away.p99", float(np.percentile(took, 99)), "ms", note=note), Row("away.worst", float(took.max()), "ms", note=note),
            Row("converged_s", converged_s, "s", note=f"{note}; from its start on, which takes some seconds, until digests agree"),
            Row("differing", differing, "slots", note="of both replicas, of 64 each, in the end")]


def _converged(config: Config) -> int:
    """Wait until both replicas have the shards' digests; slots that still differ after CONVERGED_S."""
    return sum(row["differing"] for row in digests(config, CONVERGED_S))


@dataclass
class Pushed:
    """Milliseconds of each push so far; the rate reached in rows/s, in the end."""

    took: list[float] = field(default_factory=list)
    rate: float = 0.0


class Training:
    """A client like the training job's."""

    def __init__(self, config: Config, space: int) -> None:
        self._model, self._target = config.model.name, config.target_of()
        self._client, self._offsets = ParameterClient(config.ps.addresses, timeout_s=120.0), Offsets()
        random = np.random.default_rng(1)
        keys = np.unique(random.integers(0, 1 << 63, space, np.uint64))
        batches = [np.unique(random.choice(keys, KEYS)) for _ in range(BATCHES)]
        self._batches = []
        for batch in batches:
            grads = (0.1 * random.normal(size=(len(batch), DIM))).astype(np.float32)
            self._batches.append({"weights": (batch, np.concatenate([grads, grads * grads], axis=1)),
                                  "counts": (batch, np.ones((len(batch), 1), np.int64))})
        self.rows = float(np.mean([len(batch) for batch in batches]))
        self._number = 0

    def push(self) -> float:
        """Milliseconds of one push."""
        tables = self._batches[self._number % BATCHES]
        self._number += 1
        began = time.perf_counter()
        self._client.push(self._model, self._target, self._offsets.take(CAUSES), lambda index: tables)
        return 1000 * (time.perf_counter() - began)

    def run(self, seconds: float) -> np.ndarray:
        """Milliseconds of pushes one after the other, for so long."""
        took, ends = [], time.monotonic() + seconds
        while time.monotonic() < ends:
            took.append(self.push())
        return np.array(took)

    @contextmanager
    def beside(self, rate: float) -> Iterator[Pushed]:
        """Push at `rate` rows/s on a thread during the block; a push that is late is not made up for twice."""
        over, pushed, began = threading.Event(), Pushed(), time.monotonic()

        def work() -> None:
            due = time.monotonic()
            while not over.is_set():
                pushed.took.append(self.push())
                due = max(due + self.rows / rate, time.monotonic() - 1.0)
                over.wait(max(0.0, due - time.monotonic()))

        thread = threading.Thread(target=work, name="pushes")
        thread.start()
        try:
            yield pushed
        finally:
            over.set()
            thread.join()
            pushed.rate = self.rows * len(pushed.took) / (time.monotonic() - began)

    def close(self) -> None:
        self._client.close()


class Markers:
    """Keys of their own, one a slot, each pushed so that its first weight only grows: what is higher is newer."""

    def __init__(self, config: Config) -> None:
        self._model, self._target = config.model.name, config.target_of()
        self._client, self._offsets = ParameterClient(config.ps.addresses, timeout_s=120.0), Offsets(2)
        self._replicas = [Client(address) for address in config.replica.addresses]
        candidates = np.arange(1 << 63, (1 << 63) + 4096, dtype=np.uint64)
        self._keys = candidates[np.unique(kernels.slots_of(kernel_input(candidates)), return_index=True)[1]]
        self._grads = np.concatenate([np.full((1, DIM), -1, np.float32), np.ones((1, DIM), np.float32)], axis=1)
        self._number = self.lost = 0

    def run(self, seconds: float) -> np.ndarray:
        """Milliseconds from the acknowledgement to each replica, of markers for so long; `lost` of them."""
        took, ends, self.lost = list[float](), time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            took += self._mark()
            time.sleep(MARK_EVERY_S)
        return np.array(took)

    def _mark(self) -> list[float]:
        key = self._keys[self._number % SLOTS : self._number % SLOTS + 1]
        self._number += 1
        self._client.push(self._model, self._target, self._offsets.take(1), lambda index: {"weights": (key, self._grads)})
        acknowledged = time.perf_counter()
        wanted = self._client.pull(self._model, "weights", key)[0][0, 0]
        waiting, took = list(self._replicas), list[float]()
        while waiting:
            for replica in list(waiting):
                if self._weight(replica, key) >= wanted:
                    took.append(1000 * (time.perf_counter() - acknowledged))
                    waiting.remove(replica)
            if time.perf_counter() - acknowledged > LOST_S:
                self.lost += len(waiting)
                break
            time.sleep(POLL_S)
        return took

    def _weight(self, replica: Client, key: np.ndarray) -> float:
        try:
            return float(replica.call("pull", {"model": self._model, "table": "weights"}, {"keys": key})[1]["values"][0, 0])
        except RpcError:
            return -np.inf

    def close(self) -> None:
        self._client.close()
        for replica in self._replicas:
            replica.close()
