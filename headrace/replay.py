"""A file of rows as a stream of interactions: an impression a row, an action right after it where the label is true.

`send(key, record)` takes them in time order. The end of the stream is closed by heartbeats to every partition: event time moves on
past the attribution window without an event, and under the clock `now` never ahead of the wall.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from headrace.rows import Rows
from headrace.schemas.hashing import heartbeat_keys
from headrace.schemas.mapped import Record, contexts, exposures, record

Clock = Literal["log", "now"]
Send = Callable[[bytes, Record], Any]
LOG_TS = "_log_ts_ms"  # context keys that start with _ are no features
BATCH_ROWS = 2048
BATCH_ROWS_NOW = 256  # `moved` may wait for the broker after each: an event that lies queued grows old
HEARTBEATS_LOG = 3


@dataclass(frozen=True)
class Sent:
    """What was sent: counts without heartbeats, event times in ms, wall seconds."""

    rows: int = 0
    impressions: int = 0
    actions: int = 0
    first_ts_ms: int = 0
    last_ts_ms: int = 0
    seconds: float = 0.0
    digest: str = ""

    @property
    def interactions(self) -> int:
        return self.impressions + self.actions


@dataclass(frozen=True)
class Pace:
    """How fast: `factor` times the file's own speed, None as fast as `send` takes them."""

    factor: float | None = None

    @classmethod
    def of(cls, text: str) -> Pace:
        """max, or a number from 1 and x as in 10x: slower, the stack's event time would overtake the file. Raises ValueError."""
        if text == "max":
            return cls()
        try:
            factor = float(text.removesuffix("x")) if text.endswith("x") else 0.0
        except ValueError:
            factor = 0.0
        if not 1 <= factor < float("inf"):
            raise ValueError(f"speed is {text!r}; write max, 1x, 10x or another number from 1 and x")
        return cls(factor)


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


def replay(rows: Rows, send: Send, *, clock: Clock = "log", pace: Pace = Pace(), wall_ms: Callable[[], int] = now_ms,
           sleep: Callable[[float], Any] = time.sleep, moved: Callable[[Sent], Any] = lambda sent: None,
           batch_rows: int | None = None) -> Sent:
    """Send all of `rows`; `moved` is called after each batch of `batch_rows` rows, and often while waiting for a paced row."""
    started = time.monotonic()
    done = positives = 0
    first = last = int(rows.ts_ms[0]) if clock == "log" else wall_ms()
    batch_rows = batch_rows or (BATCH_ROWS if clock == "log" else BATCH_ROWS_NOW)
    for batch in (_paced(rows, pace, sleep, batch_rows) if pace.factor else _slices(len(rows), batch_rows)):
        if batch.stop > batch.start:
            last = _send_batch(rows, batch, send, clock, wall_ms)
            positives += int(rows.label[batch].sum())
            done = batch.stop
        moved(Sent(done, done, positives, first, last, time.monotonic() - started, rows.digest))
    return Sent(done, done, positives, first, last, time.monotonic() - started, rows.digest)


def interactions(rows: Rows, batch: slice) -> Iterator[tuple[bytes, Record, Record | None]]:
    """Of each row of `batch`: the key, the impression, and the action or None. Both share one context: a sink must not change it.

    A row is a request of its own: sent faster than it happened, an item that a user met twice lies within one window, or one millisecond.
    """
    part = slice(batch.start, batch.stop)
    names = [f"{rows.digest}-{row}" for row in rows.row[part].tolist()]
    made = contexts({key: column[part] for key, column in rows.features.items()}, len(names))
    return exposures(names, rows.ts_ms[part].tolist(), rows.label[part].tolist(), rows.user[part].to_pylist(), rows.item[part].to_pylist(),
                     made, rows.action)


def heartbeat(ts_ms: int) -> Record:
    """The record that moves event time to `ts_ms` and is nothing else."""
    return record("heartbeat", None, "", "", "heartbeat", ts_ms, {})


def close(sent: Sent, send: Send, partitions: int, window_ms: int, out_of_orderness_ms: int, *, clock: Clock = "log",
          wall_ms: Callable[[], int] = now_ms, sleep: Callable[[float], Any] = time.sleep) -> int:
    """End the stream: heartbeats to all `partitions` until the window of the last event is over. Returns the last heartbeat's ts_ms."""
    keys = heartbeat_keys(partitions)
    over = sent.last_ts_ms + window_ms + out_of_orderness_ms + 1
    beats = 0
    while True:
        ts_ms = over if clock == "log" else wall_ms()
        for key in keys:
            send(key, heartbeat(ts_ms))
        beats += 1
        if ts_ms >= over and (clock == "now" or beats >= HEARTBEATS_LOG):
            return ts_ms
        sleep(0.1)


def _send_batch(rows: Rows, batch: slice, send: Send, clock: Clock, wall_ms: Callable[[], int]) -> int:
    """Send one batch; returns the event time of its last row."""
    ts_ms = 0
    for key, impression, action in interactions(rows, batch):
        if clock == "now":
            impression["context"][LOG_TS] = str(impression["ts_ms"])
            impression["ts_ms"] = wall_ms()
        ts_ms = impression["ts_ms"]
        send(key, impression)
        if action is not None:
            action["ts_ms"] = ts_ms
            send(key, action)
    return ts_ms


def _slices(count: int, batch_rows: int) -> Iterator[slice]:
    for start in range(0, count, batch_rows):
        yield slice(start, min(start + batch_rows, count))


def _paced(rows: Rows, pace: Pace, sleep: Callable[[float], Any], batch_rows: int) -> Iterator[slice]:
    """Slices of rows as they fall due; an empty one about each 0.2 s of waiting, so that a bar can move."""
    started = time.monotonic()
    due_s = (rows.ts_ms - rows.ts_ms[0]) / (1000.0 * (pace.factor or 1.0))
    start, count = 0, len(rows)
    while start < count:
        passed = time.monotonic() - started
        stop = min(int(due_s.searchsorted(passed, side="right")), start + batch_rows)
        if stop > start:
            yield slice(start, stop)
            start = stop
        else:
            sleep(min(due_s[start] - passed, 0.2))
            yield slice(start, start)
