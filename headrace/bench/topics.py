"""What benches of jobs share: rows sent, and how fast a topic grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.access import given
from headrace.bench.replay_encode import invented
from headrace.clock import StackClock
from headrace.config import Config
from headrace.kafka import Producer, since_each, watermarks
from headrace.replay import Sent, close, heartbeat, replay
from headrace.rows import Rows
from headrace.schemas.codec import Codec
from headrace.schemas.hashing import heartbeat_keys
from headrace.schemas.registry import RegistryClient

STILL_S, DEADLINE_S, LOOK_S = 4.0, 240.0, 0.2
GRID_MS = 50
BEGIN_MS = 1_500_000_000_000


def grown(config: Config, topic: str, before: int, began_ms: int, ended_ms: int) -> list[tuple[float, int]]:
    """(seconds, records more than `before`) at each change of a topic, by the broker's clock: a busy machine looks too seldom."""
    times_ms = range(began_ms, ended_ms + GRID_MS, GRID_MS)
    counts = [sum(offsets.values()) - before for offsets in since_each(config.kafka.cluster, topic, times_ms)]
    return [(at / 1000, count) for at, count, earlier in zip(times_ms, counts, [0, *counts], strict=False) if count > earlier]


def curve(output: Callable[[], int], wanted: int | None) -> list[tuple[float, int]]:
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


def rate(seen: list[tuple[float, int]], warm: float) -> float:
    """Output a second between its share `warm` and its end. Raises ValueError when all came in one look."""
    last_s, last = seen[-1]
    first_s, first = next((point for point in seen if point[1] >= warm * last), seen[0])
    if last == first:
        raise ValueError(f"all of {last} came in one look: more rows are needed")
    return (last - first) / (last_s - first_s)


def sent_rows(config: Config, rows: int, seed: int, after_ms: int = 0, every_ms: float = 1000.0, closed: bool = True) -> Sent:
    """Invented rows, one `every_ms` of event time, and heartbeats behind them until their windows are `closed`; what was sent."""
    producer, codec = Producer(config.kafka.cluster, linger_ms=20), Codec("interactions", RegistryClient(config.registry.access))
    made = replace(invented(rows, seed), digest=f"{seed:08x}")
    first_ms = int(made.ts_ms[0]) + after_ms
    keys, log_rows = heartbeat_keys(config.kafka.partitions), replace(made, ts_ms=first_ms + (np.arange(rows) * every_ms).astype(np.int64))

    def send(key: bytes, record: dict[str, Any]) -> None:
        producer.send("interactions", key, codec.encode(record))

    def moved(sent: Sent) -> None:
        for key in keys:
            send(key, heartbeat(sent.last_ts_ms))

    sent = replay(log_rows, send, moved=moved)
    if not closed:
        producer.flush()
        return sent
    reached = close(sent, send, config.kafka.partitions, config.samples.widest_ms, config.samples.out_of_orderness_ms)
    producer.flush()
    with closing(StackClock(**given(config.engine))) as clock:
        clock.set("log", reached)  # and runs on: the last window closes by the engine's heartbeats
    return sent


def later(after_ms: int, rows: Rows) -> Rows:
    """The same rows so much later."""
    return replace(rows, ts_ms=rows.ts_ms + after_ms)


def high(config: Config, topic: str) -> int:
    """Records that a topic has ever had."""
    return sum(high for _, high in watermarks(config.kafka.cluster, topic).values())


def until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait. Raises TimeoutError."""
    ends = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not come within {deadline_s:.0f} s")
        time.sleep(0.1)
