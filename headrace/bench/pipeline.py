"""The jobs' speed on a stack of its own: all four at once, and each alone on topics that are full, beside the same job with an identity.

Figures are of jobs that are warm: JVMs compile for a minute what they run often. All four jobs together are timed from the first of 200,000
rows to the last, after half as many; jobs alone in the second half of 200,000, or their floors, which come last, would have the warmer JVM.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from headrace import submission
from headrace.access import given
from headrace.bench.recovery import recovery
from headrace.bench.replay_encode import invented
from headrace.bench.result import Row
from headrace.clock import StackClock
from headrace.config import Config
from headrace.flink_rest import FlinkRest
from headrace.kafka import Producer, since_each, watermarks
from headrace.live_taps import live_taps
from headrace.own_stack import own_stack
from headrace.replay import Sent, close, heartbeat, replay
from headrace.rows import Rows
from headrace.schemas.codec import Codec
from headrace.schemas.hashing import heartbeat_keys
from headrace.schemas.registry import RegistryClient
from headrace.taps import Taps

JOBS = ("features", "samples", "train", "vectors")
ROWS, ROWS_QUICK = 200_000, 6_000
KILLS = 3
STILL_S, DEADLINE_S, LOOK_S = 4.0, 240.0, 0.2
GRID_MS = 50
BEGIN_MS = 1_500_000_000_000
WARM = 0.5  # share of the output that is not timed: JVM and workers warm up

log = logging.getLogger(__name__)


def measure(quick: bool) -> list[Row]:
    """Rows `all_jobs` (interactions/s; its peer the four floors, one after the other, an interaction each), features, samples, train,
    vectors of their floors, and `recovery`; --quick: all_jobs alone, without a peer."""
    with _stack() as config, live_taps(config) as taps:
        together = _all_jobs(config, taps, ROWS_QUICK if quick else ROWS)
        if quick:
            return [together]
        back = recovery(config, partial(_later, 20_000_000_000), lambda: min(taps.applied()), KILLS)
    with _stack() as config:
        each, floor = _each_job(config, ROWS)
    return [replace(together, of="the four identity jobs in turn", of_value=floor), *each, back]


@contextmanager
def _stack() -> Iterator[Config]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, own_stack(Path(folder) / "data", log.info) as config:
        with closing(StackClock(**given(config.engine))) as clock:
            clock.set("log", BEGIN_MS)  # the engine's heartbeats stay behind the rows
        yield config


def _all_jobs(config: Config, taps: Taps, rows: int) -> Row:
    """Interactions sent as fast as they go through four jobs that run and are warm; from the first one sent to the last sample applied: in
    any part of that time one job may be ahead of another."""
    submission.submit(config, list(JOBS))
    first = int(rows * WARM)
    _send(config, first, seed=2)
    _until(lambda: min(taps.applied()) >= first, "the first samples")
    began = time.monotonic()
    sent = _send(config, rows, seed=1, after_ms=10_000_000_000)
    _until(lambda: min(taps.applied()) >= first + rows, "the last samples")
    return Row("all_jobs", sent.interactions / (time.monotonic() - began), "interactions/s", note=f"{rows} rows, {sent.interactions}"
               f" interactions, {config.flink.train_batch_rows} rows a push, heartbeats not counted")


def _each_job(config: Config, rows: int) -> tuple[list[Row], float]:
    """The jobs alone; interactions/s when each goes through the four floors, and these take turns at the machine."""
    sent = _send(config, rows, seed=1)
    # With the heartbeats that close the last window: without them the samples job would wait for ever.
    enriched, touched = _high(config, "interactions"), f"touched.{config.model.name}"
    topics = {"features": "enriched", "samples": "samples", "train": touched, "vectors": "vectors"}
    wanted = {"features": enriched, "samples": rows}
    with live_taps(config) as taps:
        inputs = {"features": sent.interactions, "samples": sent.interactions, "train": rows}
        alone: dict[str, float] = {}
        for name in JOBS:
            applied = (lambda: min(taps.applied()) >= rows) if name == "train" else None
            alone[name] = _alone(config, name, topics[name], wanted.get(name), applied)
    inputs["vectors"] = _high(config, touched)
    wanted["train"] = 2 * rows
    made, floors_s = [], 0.0
    for name in JOBS:
        floor = _alone(config, f"{name}-floor", topics[name], wanted.get(name))
        unit = {"train": "samples/s", "vectors": "touched ids/s"}.get(name, "interactions/s")
        made.append(Row(name, alone[name] * inputs[name], unit, "the same job with an identity", floor * inputs[name],
                        "alone, from a full topic"))
        floors_s += 1 / floor
    return made, sent.interactions / floors_s


def _alone(config: Config, name: str, topic: str, wanted: int | None, over: Callable[[], bool] | None = None) -> float:
    """Share of the job's work done a second, once it is warm: it runs alone until `over`, or its topic has `wanted` records more, or
    without these stands still (heartbeats never do), and is cancelled. The times are the broker's: a busy machine looks too seldom."""
    before, began_ms = watermarks(config.kafka.cluster, topic), time.time_ns() // 1_000_000
    first = sum(high for _, high in before.values())
    job = submission.submit(config, [name])[name]
    if over is not None:
        _until(over, f"the end of {name}")
    else:
        _curve(lambda: _high(config, topic) - first, wanted)
    ended_ms = time.time_ns() // 1_000_000
    FlinkRest(config.flink.url).cancel(job)
    times_ms = range(began_ms, ended_ms + GRID_MS, GRID_MS)
    counts = [sum(offsets.values()) - first for offsets in since_each(config.kafka.cluster, topic, times_ms)]
    seen = [(at / 1000, count) for at, count, earlier in zip(times_ms, counts, [0, *counts], strict=False) if count > earlier]
    return _rate(seen, WARM) / seen[-1][1]


def _curve(output: Callable[[], int], wanted: int | None) -> list[tuple[float, int]]:
    """(seconds, output) at each change, until `wanted` is reached, or it stands still when that is None."""
    seen: list[tuple[float, int]] = []
    began = time.monotonic()
    while time.monotonic() - began < DEADLINE_S:
        at, now = time.monotonic(), output()
        if now > (seen[-1][1] if seen else 0):
            seen.append((at, now))
        if wanted is not None and now >= wanted:
            return seen
        if wanted is None and seen and at - seen[-1][0] > STILL_S:
            return seen
        time.sleep(LOOK_S)
    raise TimeoutError(f"{seen[-1][1] if seen else 0} of {wanted or 'all'} after {DEADLINE_S:.0f} s")


def _rate(seen: list[tuple[float, int]], warm: float) -> float:
    """Output a second between its share `warm` and its end. Raises ValueError when all came in one look."""
    last_s, last = seen[-1]
    first_s, first = next((point for point in seen if point[1] >= warm * last), seen[0])
    if last == first:
        raise ValueError(f"all of {last} came in one look: more rows are needed")
    return (last - first) / (last_s - first_s)


def _send(config: Config, rows: int, seed: int, after_ms: int = 0) -> Sent:
    """Invented rows, and heartbeats behind them; what was sent."""
    producer, codec = Producer(config.kafka.cluster, linger_ms=20), Codec("interactions", RegistryClient(config.registry.access))
    keys, log_rows = heartbeat_keys(config.kafka.partitions), _later(after_ms, replace(invented(rows, seed), digest=f"{seed:08x}"))

    def send(key: bytes, record: dict[str, Any]) -> None:
        producer.send("interactions", key, codec.encode(record))

    def moved(sent: Sent) -> None:
        for key in keys:
            send(key, heartbeat(sent.last_ts_ms))

    sent = replay(log_rows, send, moved=moved)
    reached = close(sent, send, config.kafka.partitions, config.samples.window_ms, config.samples.out_of_orderness_ms)
    producer.flush()
    with closing(StackClock(**given(config.engine))) as clock:
        clock.set("log", reached)  # and runs on: the last window closes by the engine's heartbeats
    return sent


def _later(after_ms: int, rows: Rows) -> Rows:
    return replace(rows, ts_ms=rows.ts_ms + after_ms)


def _high(config: Config, topic: str) -> int:
    return sum(high for _, high in watermarks(config.kafka.cluster, topic).values())


def _until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not come within {DEADLINE_S:.0f} s")
        time.sleep(0.1)
