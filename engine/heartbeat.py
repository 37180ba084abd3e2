"""Heartbeats: event time moves on in every partition of `interactions`, so that windows close where nothing happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from headrace.engine.clock import NOW, Clock
from headrace.schemas.hashing import heartbeat_keys

log = logging.getLogger(__name__)


class Heartbeats:
    """While the clock is set, every `period_ms` a heartbeat under a key of each partition, through `send(key, record)`, from a thread.

    On the clock `now` they lie `lag_ms` behind it: producers date an event when it happens and deliver it later, and a heartbeat that
    overtakes it makes it late.
    """

    def __init__(self, clock: Clock, partitions: int, period_ms: int, send: Callable[[bytes, dict[str, Any]], Any],
                 lag_ms: int = 0) -> None:
        self._clock, self._send, self._lag_ms = clock, send, lag_ms
        self._keys = heartbeat_keys(partitions)
        self._period_s = period_ms / 1000
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def beat(self) -> None:
        """One round; nothing while the clock is unset, or a replay sends them in order with events that are still on their way."""
        if self._clock.mode is None or self._clock.held:
            return
        ts_ms = self._clock.peek() - (self._lag_ms if self._clock.mode == NOW else 0)
        for key in self._keys:
            self._send(key, {"event_id": "heartbeat", "user_id": "", "item_id": "", "action": "heartbeat", "ts_ms": ts_ms})

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                self.beat()
            except Exception:
                log.exception("heartbeats were not sent; windows wait until they are")
