"""The stream of a verification: rows of a file at a rate that lasts until the kills are over, heartbeats in order behind them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headrace.access import given
from headrace.clock import EngineUnavailable, StackClock
from headrace.config import Config
from headrace.disorder import Disorder, Shares
from headrace.kafka import Producer
from headrace.replay import Record, Sent, close, heartbeat, replay
from headrace.rows import Rows
from headrace.schemas.codec import Codec
from headrace.schemas.hashing import heartbeat_keys
from headrace.schemas.interaction import TS_MS_MIN
from headrace.schemas.registry import RegistryClient

TOPIC = "interactions"
BATCH_ROWS = 32
CLAIM_MS = 86_400_000
DELIVERY_MS = 180_000  # the broker is among those that are ended
ENGINE_S = 120.0
SPARE = 1.3  # rows are spread over this much more than the kills are expected to take


@dataclass
class Stream:
    """Sends `rows` in the log's time to the stack of `config`. `share()` -> how much of the kills is over, 0 to 1: rows are sent so that
    they last until it is 1, at most `rate` a second, and not before `rows_min` were sent. `stop()`: whether to give up. `shares` of events
    go out of their order, as `seed` says; `disorder` tells how many did."""

    config: Config
    rows: Rows
    rate: float
    rows_min: int
    share: Callable[[], float]
    stop: Callable[[], bool]
    shares: Shares = field(default_factory=Shares)
    seed: int = 0
    sent: Sent = field(default_factory=Sent)
    disorder: dict[str, int] = field(default_factory=dict)

    def run(self) -> Sent:
        """Everything is at the broker when this returns; what was sent. Raises Undelivered, EngineUnavailable."""
        config, clock = self.config, StackClock(**given(self.config.engine))
        producer = Producer(config.kafka.cluster, linger_ms=5, delivery_timeout_ms=DELIVERY_MS)
        codec, keys = Codec(TOPIC, RegistryClient(config.registry.access)), heartbeat_keys(config.kafka.partitions)

        def send(key: bytes, record: Record) -> None:
            producer.send(TOPIC, key, codec.encode(record), deadline_s=DELIVERY_MS / 1000)

        def moved(sent: Sent) -> None:
            for key in keys:  # behind the rows of their time, from the same producer: a quiet partition holds nothing back
                send(key, heartbeat(sent.last_ts_ms))
            self.sent = sent
            self._wait()

        try:
            _insist(lambda: clock.set("log", max(int(self.rows.ts_ms[0]) - CLAIM_MS, TS_MS_MIN)))
            self._began = time.monotonic()
            disorder = Disorder(send, self.shares, config.samples.out_of_orderness_ms, self.seed)
            self.disorder = disorder.done
            try:
                replay(self.rows, disorder, moved=moved, batch_rows=BATCH_ROWS)
            except _Enough:
                pass
            disorder.close()
            wanted = config.samples
            reached = close(self.sent, send, config.kafka.partitions, wanted.widest_ms, wanted.out_of_orderness_ms)
            producer.flush(DELIVERY_MS / 1000)
            _insist(lambda: clock.set("log", reached))
            return self.sent
        finally:
            clock.close()

    def _wait(self) -> None:
        """Until the next batch is due; raises _Enough when none is needed."""
        began = time.monotonic()
        while True:
            share = self.share()
            if (share >= 1 and self.sent.rows >= self.rows_min) or self.stop():
                raise _Enough
            passed = time.monotonic() - self._began
            left = len(self.rows) - self.sent.rows
            to_come = SPARE * passed * (1 - share) / share if share else 0.0
            rate = min(self.rate, left / to_come) if to_come else self.rate
            if time.monotonic() - began >= BATCH_ROWS / max(rate, 1.0):
                return
            time.sleep(0.02)


class _Enough(Exception):
    """The kills are over and enough was sent."""


def _insist(work: Callable[[], Any]) -> None:
    """Do `work` again while the engine, which may have been ended just now, does not answer."""
    ends = time.monotonic() + ENGINE_S
    while True:
        try:
            work()
            return
        except EngineUnavailable:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)
