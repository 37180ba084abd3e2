"""A replay into a running stack, whole: agree on the clock, send, close, drain, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.clock import StackClock, agree
from headrace.config import Config
from headrace.drain import Progress, drain
from headrace.kafka import Producer, reach, watermarks
from headrace.live_taps import live_taps
from headrace.replay import Clock, Pace, Sent, close, replay
from headrace.report import report
from headrace.rows import Rows
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from headrace.taps import Mark

TOPIC = "interactions"
CLOCK_S = 0.5


@dataclass(frozen=True)
class Watch:
    """Who is told how a replay goes: `sent` while it is sent, `drained` while it drains."""

    sent: Callable[[Sent], Any] = lambda sent: None
    drained: Callable[[Sent, Progress], Any] = lambda sent, progress: None


def run(config: Config, rows: Rows, file: str, *, clock: Clock = "log", pace: Pace = Pace(), wait: bool = True,
        watch: Watch = Watch(), also: Callable[[Sent], Sent] = lambda sent: sent) -> dict[str, Any]:
    """Replay `rows` of `file`; the report, or with `wait` False the part of it that is known at once.

    `also` adds to what was sent what others sent meanwhile (a demo's clicks). Raises KafkaUnavailable, Undelivered, ClockRefused,
    EngineUnavailable, Stuck, RegistryUnavailable, Unavailable.
    """
    reach(config.kafka.bootstrap, 5.0)
    stack_clock = StackClock(config.engine.url)
    try:
        agree(stack_clock.state(), clock, int(rows.ts_ms[0]), int(rows.ts_ms[-1]), file)
        stack_clock.set(clock, int(rows.ts_ms[0]) if clock == "log" else time.time_ns() // 1_000_000)
        if not wait:
            sent = _send(config, rows, clock, pace, watch, stack_clock)
            return {"rows": sent.rows, "interactions_sent": sent.interactions, "impressions": sent.impressions, "actions": sent.actions,
                    "seconds": round(sent.seconds, 3), "events_per_s": round(sent.interactions / max(sent.seconds, 1e-9), 1)}
        with live_taps(config) as taps:
            mark = Mark.of(taps)
            started = time.monotonic()
            sent = also(_send(config, rows, clock, pace, watch, stack_clock))
            drain(sent, mark, taps, moved_to=lambda progress: watch.drained(sent, progress))
            return report(sent, mark, taps, time.monotonic() - started)
    finally:
        stack_clock.close()


def _send(config: Config, rows: Rows, clock: Clock, pace: Pace, watch: Watch, stack_clock: StackClock) -> Sent:
    """Send all rows and the closing heartbeats; everything is at the broker when this returns."""
    producer = Producer(config.kafka.bootstrap)
    codec = Codec(TOPIC, RegistryClient(config.registry.url))
    told = [time.monotonic()]

    def send(key: bytes, record: dict[str, Any]) -> None:
        producer.send(TOPIC, key, codec.encode(record))

    def moved(sent: Sent) -> None:
        watch.sent(sent)
        if clock == "log" and time.monotonic() - told[0] > CLOCK_S:
            producer.flush()  # first the events, then the clock: a heartbeat of the engine must not overtake them
            stack_clock.set("log", sent.last_ts_ms)
            told[0] = time.monotonic()

    sent = replay(rows, send, clock=clock, pace=pace, moved=moved)
    producer.flush()
    partitions = len(watermarks(config.kafka.bootstrap, TOPIC))
    over_ms = close(sent, send, partitions, config.samples.window_ms, config.samples.out_of_orderness_ms, clock=clock)
    producer.flush()
    if clock == "log":
        stack_clock.set("log", over_ms)
    return sent
