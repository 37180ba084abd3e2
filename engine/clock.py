"""The clock of a stack: event time for everything that the engine stamps, and for its heartbeats.

A stack has one clock a run, `now` or the time of a replayed log, never both: an event of today beside events of 1998 would make one of them
late for ever. It is unset at first; what uses it first fixes its mode, in a file that outlives the process.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOW, LOG = "now", "log"
NEAR_MS = 3_600_000


class ClockFixed(Exception):
    """The stack runs on the other clock: use that one, or start a stack on a new data folder."""


class Clock:
    """Milliseconds since 1970. `file`: where the mode is kept; `wall_ms`: the wall clock. Safe between threads.

    In mode `log` the time is the last one set plus the wall time that has passed since; it only moves forward.
    """

    def __init__(self, file: Path, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._file, self._wall_ms = file, wall_ms
        self._lock = threading.Lock()
        self._mode: str | None = None
        self._set_ms = self._set_at_ms = self._last_ms = 0
        self._held_until_ms = 0
        if file.exists():
            held = json.loads(file.read_text())
            self._mode, self._set_ms, self._set_at_ms = held["mode"], held["ts_ms"], held["wall_ms"]

    @property
    def mode(self) -> str | None:
        """None, "now" or "log"."""
        return self._mode

    def state(self) -> dict[str, Any]:
        """{"mode", "ts_ms"}; both None while unset."""
        with self._lock:
            return {"mode": self._mode, "ts_ms": self._read() if self._mode else None}

    def peek(self) -> int:
        """The time, for what leaves no trace: while unset the wall clock's, and the mode stays open."""
        with self._lock:
            return self._read() if self._mode else self._wall_ms()

    def use(self) -> int:
        """The time, for what is stamped with it: fixes the mode `now` while unset."""
        with self._lock:
            if self._mode is None:
                self._fix(NOW, self._wall_ms())
            return self._read()

    def met(self, ts_ms: int) -> None:
        """An event came that is dated by its producer: while unset, one dated within an hour of the wall clock fixes the mode `now`."""
        with self._lock:
            if self._mode is None and abs(ts_ms - self._wall_ms()) <= NEAR_MS:
                self._fix(NOW, self._wall_ms())

    def set(self, mode: str, ts_ms: int) -> dict[str, Any]:
        """Fix the mode, or under `log` move the time forward to `ts_ms`; an earlier one changes nothing. Raises ClockFixed."""
        with self._lock:
            if self._mode not in (None, mode):
                away = "; `headrace clock now` takes it to today, for good" if self._mode == LOG else ""
                raise ClockFixed(f"this stack runs on the clock {self._mode!r}, and a stack has one clock a run: use it,"
                                 f" or start a stack on a new data folder (`headrace up --data DIR`){away}")
            if self._mode is None or (mode == LOG and ts_ms > self._read()):
                self._fix(mode, ts_ms)
            return {"mode": self._mode, "ts_ms": self._read()}

    def leave_log(self) -> dict[str, Any]:
        """From the log's time to the wall's, for good: event time moves forward, never back. Raises ClockFixed where the log is ahead."""
        with self._lock:
            if self._mode == LOG and self._read() > self._wall_ms():
                raise ClockFixed("the log's time is ahead of today's, and event time does not go back: leave it when today has come there")
            if self._mode != NOW:
                self._fix(NOW, self._wall_ms())
            return {"mode": self._mode, "ts_ms": self._read()}

    def hold(self, for_ms: int) -> None:
        """A replay sends its own heartbeats for the next `for_ms`, in order with its events; 0 gives them back at once."""
        self._held_until_ms = self._wall_ms() + for_ms if for_ms else 0

    @property
    def held(self) -> bool:
        """True while a replay sends heartbeats instead of the engine."""
        return self._wall_ms() < self._held_until_ms

    def _read(self) -> int:
        wall = self._wall_ms()
        now = wall if self._mode == NOW else self._set_ms + max(0, wall - self._set_at_ms)
        self._last_ms = max(self._last_ms, now)  # a wall clock that is put back does not put ours back
        return self._last_ms

    def _fix(self, mode: str, ts_ms: int) -> None:
        fresh = self._file.with_suffix(".new")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        at_ms = self._wall_ms()
        fresh.write_text(json.dumps({"mode": mode, "ts_ms": ts_ms, "wall_ms": at_ms}))
        os.replace(fresh, self._file)
        self._mode, self._set_ms, self._set_at_ms = mode, ts_ms, at_ms
