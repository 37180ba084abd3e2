"""A stack looked at again and again while a stream runs: latency, lag, memory by process, disk by part, rows of the tables.

Latency is the broker's: from a record's append in `interactions` to that of the first record of its cause in `touched.MODEL`, which
training writes once every shard has acknowledged the push. It needs no probe and no clock of ours, and some hundred causes tell a p99 at
each look; only a row whose user and item were both said by others of its push is not among them. Under `wait` every sample lies the window
and the out-of-orderness in the samples job, which is no work of anybody: what comes beyond is taken. Under `eager` and
`fast` only positives count.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headrace import kafka, status
from headrace.config import Config
from headrace.kafka import KafkaUnavailable
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from headrace.taps import applied_of

TOPIC = "interactions"
SLICE_MS, AGO_MS = 1000, 2000  # one second of touches, of a moment ago: everything in it can be read
OWN = "this command"  # the supervisor of an own stack: it sends and looks too, and is no part of what is looked at
MB = 1e6
PARTS = {"kafka": "kafka", "features": "features", "ps": "ps", "flink checkpoints": "flink/checkpoints", "flink, the rest": "flink",
         "logs": "logs"}


class Gauges:
    """Looks at the stack of `config` every `every_s`, on a thread, while `with` it. `sent()` -> impressions sent; `positive(event_id)`:
    whether an impression is of a positive row. `samples` grows by one dict a look; `failed` says why looks found somebody away."""

    def __init__(self, config: Config, every_s: float, sent: Callable[[], int], positive: Callable[[str], bool],
                 told: Callable[[dict[str, Any]], Any] = lambda sample: None) -> None:
        self._config, self._every_s, self._sent, self._positive, self._told = config, every_s, sent, positive, told
        registry = RegistryClient(config.registry.access)
        self._codecs = {name: Codec(name, registry) for name in (TOPIC, "touched")}
        self._source = kafka.topic_source(config.kafka.cluster, TOPIC)
        self.samples: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="gauges", daemon=True)

    def __enter__(self) -> Gauges:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _work(self) -> None:
        shards, features = [Client(address, 5.0) for address in self._config.ps.reachable], Client(self._config.features.address, 5.0)
        try:
            while not self._stop.wait(self._every_s - (time.monotonic() - self._began) % self._every_s):
                try:
                    self.samples.append(self._look(shards, features))
                    self._told(self.samples[-1])
                except (KafkaUnavailable, RpcError) as error:
                    self.failed.append(f"{time.monotonic() - self._began:.0f} s: {error}")
        except BaseException as error:  # a defect of ours: the stream need not go on
            self.error = error
        finally:
            for client in (*shards, features):
                client.close()

    def _look(self, shards: list[Client], features: Client) -> dict[str, Any]:
        at_s = time.monotonic() - self._began
        sent, name = self._sent(), self._config.model.name
        stats = [client.call("stats")[0] for client in shards]
        held = features.call("stats")[0]
        models = [one["models"][name] for one in stats]
        tables = {table: sum(model["tables"][table]["rows"] for model in models) for table in models[0]["tables"]}
        latency = self._latency()
        p50, p99 = (round(float(np.quantile(latency, q)), 1) if len(latency) else None for q in (0.5, 0.99))
        found = status.rows(self._config.stack.data_dir) or []
        memory = {OWN if row["name"] == "supervisor" else row["name"]: row["memory_mb"] for row in found}
        return {"at_s": round(at_s, 1), "latency_p50_ms": p50, "latency_p99_ms": p99, "latencies": len(latency), "sent": sent,
                "lag": sent - min(applied_of(one, name) for one in stats), "memory_mb": memory,
                "memory_total_mb": sum(mb for one, mb in memory.items() if one != OWN), "disk_mb": disk_mb(self._config.stack.data_dir),
                "rows": {**tables, "users": held["users"], "items": held["items"]}}

    def _latency(self) -> np.ndarray:
        """float64[n] ms of the causes that a second of touches names: beyond the window under `wait`, of positives alone without."""
        bootstrap, topic = self._config.kafka.cluster, f"touched.{self._config.model.name}"
        stop_ms = time.time_ns() // 1_000_000 - AGO_MS
        start, stop = kafka.since_each(bootstrap, topic, (stop_ms - SLICE_MS, stop_ms))
        learnt: dict[tuple[int, int], int] = {}
        for touch in kafka.read_between(bootstrap, topic, start, {p: high for p, high in stop.items() if high > start[p]}):
            record = self._codecs["touched"].decode(touch.value)
            if record["source"] == self._source:
                at = record["partition"], record["offset"]
                learnt[at] = min(touch.timestamp_ms, learnt.get(at, touch.timestamp_ms))
        arrived = kafka.fetch(bootstrap, TOPIC, learnt)
        wanted = self._config.samples
        if wanted.live:
            took = [learnt[at] - one.timestamp_ms for at, one in arrived.items()
                    if self._positive(self._codecs[TOPIC].decode(one.value)["event_id"])]
        else:
            took = [learnt[at] - one.timestamp_ms - wanted.widest_ms - wanted.out_of_orderness_ms for at, one in arrived.items()]
        return np.array(took, np.float64)


def disk_mb(data_dir: Path) -> dict[str, float]:
    """MB on the disk of a data folder by part; what a folder holds is counted in the first part that names it."""
    found, counted = dict.fromkeys(PARTS, 0), 0
    for part, folder in PARTS.items():
        below = [other for other in PARTS.values() if other.startswith(f"{folder}/")]
        found[part] = _bytes_below(data_dir / folder) - sum(_bytes_below(data_dir / other) for other in below)
        counted += found[part]
    return {part: round(count / MB, 2) for part, count in {**found, "other": _bytes_below(data_dir) - counted}.items()}


def _bytes_below(folder: Path) -> int:
    """Bytes that the disk keeps for the files of a folder; sparse files count what they fill. Files may go while this looks."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def topics_mb(data_dir: Path) -> dict[str, float]:
    """MB on the disk of each topic of the stack's broker, its internal ones too."""
    found: dict[str, float] = {}
    for folder in (data_dir / "kafka" / "data").glob("*-*"):
        if folder.is_dir():
            name = folder.name.rpartition("-")[0]
            found[name] = found.get(name, 0.0) + _bytes_below(folder) / MB
    return {name: round(size, 2) for name, size in sorted(found.items(), key=lambda one: -one[1])}
