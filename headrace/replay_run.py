"""A replay into a running stack, whole: agree on the clock, send, close, drain, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.access import given
from headrace.clock import StackClock, agree
from headrace.config import Config
from headrace.disorder import Disorder, Shares
from headrace.drain import Progress, drain
from headrace.kafka import Producer, reach, watermarks
from headrace.live_taps import live_taps
from headrace.replay import Clock, Pace, Sent, close, heartbeat, now_ms, replay
from headrace.report import report
from headrace.rows import Rows
from headrace.schemas.codec import Codec
from headrace.schemas.hashing import heartbeat_keys
from headrace.schemas.interaction import TS_MS_MIN
from headrace.schemas.registry import RegistryClient
from headrace.taps import Mark

TOPIC = "interactions"
CLAIM_MS = 86_400_000
BEHIND_MS = 1000
HOLD_MS, BEAT_MS = 8000, 100


@dataclass(frozen=True)
class Watch:
    """Who is told how a replay goes: `sent` while it is sent, `drained` while it drains."""

    sent: Callable[[Sent], Any] = lambda sent: None
    drained: Callable[[Sent, Progress], Any] = lambda sent, progress: None


def run(config: Config, rows: Rows, file: str, *, clock: Clock = "log", pace: Pace = Pace(), wait: bool = True,
        watch: Watch = Watch(), also: Callable[[Sent], Sent] = lambda sent: sent, shares: Shares = Shares(), seed: int = 0
        ) -> dict[str, Any]:
    """Replay `rows` of `file`, `shares` of its events out of their order; the report, or with `wait` False what is known at once.

    `also` adds to what was sent what others sent meanwhile (a demo's clicks). Raises KafkaUnavailable, Undelivered, ClockRefused,
    EngineUnavailable, Stuck, RegistryUnavailable, Unavailable.
    """
    reach(config.kafka.cluster, 5.0)
    stack_clock = StackClock(**given(config.engine))
    try:
        agree(stack_clock.state(), clock, int(rows.ts_ms[0]), int(rows.ts_ms[-1]), file)
        stack_clock.set(clock, max(int(rows.ts_ms[0]) - CLAIM_MS, TS_MS_MIN) if clock == "log" else now_ms())
        if not wait:
            sent, disorder = _send(config, rows, clock, pace, watch, stack_clock, shares, seed)
            return {"rows": sent.rows, "interactions_sent": sent.interactions, "impressions": sent.impressions, "actions": sent.actions,
                    "seconds": round(sent.seconds, 3), "events_per_s": round(sent.interactions / max(sent.seconds, 1e-9), 1), **disorder}
        with live_taps(config) as taps:
            mark = Mark.of(taps)
            started = time.monotonic()
            sent, disorder = _send(config, rows, clock, pace, watch, stack_clock, shares, seed)
            sent = also(sent)
            drain(sent, mark, taps, moved_to=lambda progress: watch.drained(sent, progress))
            return {**report(sent, mark, taps, time.monotonic() - started), **disorder}
    finally:
        stack_clock.close()


class Pulse:
    """Heartbeats of a replay under `now`, from its own producer, so that none overtakes an event; `hold` keeps the engine's back."""

    def __init__(self, partitions: int, send: Callable[[bytes, dict[str, Any]], Any], hold: Callable[[int], Any]) -> None:
        self._keys, self._send, self._hold = heartbeat_keys(partitions), send, hold
        self._beat_ms = self._held_ms = 0
        self.renew()

    def renew(self) -> None:
        self._hold(HOLD_MS)
        self._held_ms = now_ms()

    def beat(self) -> None:
        """A heartbeat to each partition when the last is old enough; the hold is renewed in time."""
        now = now_ms()
        if now - self._beat_ms >= BEAT_MS:
            for key in self._keys:
                self._send(key, heartbeat(now))
            self._beat_ms = now
        if now - self._held_ms >= HOLD_MS // 4:
            self.renew()


def _send(config: Config, rows: Rows, clock: Clock, pace: Pace, watch: Watch, stack_clock: StackClock, shares: Shares, seed: int
          ) -> tuple[Sent, dict[str, Any]]:
    """Send all rows and the closing heartbeats; everything is at the broker when this returns: what was sent, and `disorder` to report.

    The engine's heartbeats carry its clock, which runs on by itself: one that overtakes an event makes it late. So under `log` the clock
    stays a day behind until the end (a second behind when paced), and under `now` they are held: ours come in order with our events.
    """
    producer = Producer(config.kafka.cluster, linger_ms=5 if clock == "log" else 0)
    codec = Codec(TOPIC, RegistryClient(config.registry.access))
    partitions = len(watermarks(config.kafka.cluster, TOPIC))
    reached = [0]

    def send(key: bytes, record: dict[str, Any]) -> None:
        producer.send(TOPIC, key, codec.encode(record))

    pulse = Pulse(partitions, send, lambda hold_ms: stack_clock.set("now", now_ms(), hold_ms)) if clock == "now" else None

    def moved(sent: Sent) -> None:
        reached[0] = sent.last_ts_ms
        if pulse:
            pulse.beat()
            producer.flush()
        elif pace.factor:
            producer.flush()
            stack_clock.set("log", sent.last_ts_ms - BEHIND_MS)
        watch.sent(sent)

    disorder = Disorder(send, shares, config.samples.out_of_orderness_ms, seed)
    try:
        sent = replay(rows, disorder, clock=clock, pace=pace, moved=moved)
        disorder.close()
        producer.flush()
        reached[0] = close(sent, send, partitions, config.samples.widest_ms, config.samples.out_of_orderness_ms, clock=clock)
        producer.flush()
        return sent, {"disorder": disorder.done} if any(shares) else {}
    finally:
        if pulse:
            stack_clock.set("now", now_ms(), hold_ms=0)
        elif reached[0]:  # after an interruption too: the rest of the file may follow, its beginning may not
            stack_clock.set("log", reached[0])
