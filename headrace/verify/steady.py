"""A seeded log without end, sent at a constant rate: as many users, items and values as at the beginning, so that every table saturates.

Event time is the log's: it begins in 2020 and runs as fast as rows are due, whenever they are sent. So a stall of this machine makes no
event late, and labels are what the seed says. Heartbeats follow the rows of their time from the same producer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from headrace.bench.replay_encode import invented
from headrace.replay import Send, Sent, heartbeat, interactions
from headrace.rows import Rows
from headrace.schemas.hashing import heartbeat_keys

BLOCK_ROWS = 4096
BEGIN_MS = 1_600_000_000_000
POSITIVES = 0.55  # of the invented rows: so many actions come with an impression
TICK_S, BEAT_S = 0.05, 0.1


def rows_a_second(rate: float) -> float:
    """Rows of `rate` interactions a second."""
    return rate / (1 + POSITIVES)


@lru_cache(maxsize=2)
def block(seed: int, number: int, rate: float) -> Rows:
    """Rows BLOCK_ROWS x `number` and on of the log of `seed` at `rate` interactions a second."""
    first = number * BLOCK_ROWS + np.arange(BLOCK_ROWS)
    ts_ms = BEGIN_MS + (first * (1000.0 / rows_a_second(rate))).astype(np.int64)
    return replace(invented(BLOCK_ROWS, seed * 1_000_003 + number), digest=f"{seed:08x}", row=first, ts_ms=ts_ms)


class Made:
    """What was sent, kept small: labels bool[rows], and by name of user and item how often it was shown and clicked."""

    def __init__(self) -> None:
        self._labels: list[np.ndarray] = []
        self.shown: dict[str, Counter[str]] = {"user": Counter(), "item": Counter()}
        self.clicked: dict[str, Counter[str]] = {"user": Counter(), "item": Counter()}

    def add(self, rows: Rows, part: slice) -> None:
        label = rows.label[part]
        self._labels.append(label.copy())
        for of, column in (("user", rows.user), ("item", rows.item)):
            names = column[part].to_pylist()
            self.shown[of].update(names)
            self.clicked[of].update(name for name, positive in zip(names, label.tolist(), strict=True) if positive)

    @property
    def labels(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, bool), *self._labels])


class Steady:
    """The log of `seed`, `rate` interactions a second. `sent` and `made` grow while it is sent."""

    def __init__(self, seed: int, rate: float) -> None:
        self.seed, self.rate = seed, rate
        self.digest = f"{seed:08x}"
        self.sent, self.made = Sent(), Made()

    def positive(self, event_id: str) -> bool:
        """Whether an event is of a positive row, sent or not."""
        number, at = divmod(int(event_id.split("-")[1]), BLOCK_ROWS)
        return bool(_labels(self.seed, number, self.rate)[at])

    def run(self, send: Send, seconds: float, partitions: int, stop: Callable[[], bool] = lambda: False, share: float = 1.0,
            clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], Any] = time.sleep) -> Sent:
        """Hand rows to `send(key, record)` as they are due, for `seconds` or until `stop()`, and heartbeats to all `partitions`.

        Goes on where the last run ended; at a `share` of the rate, for a beginning.
        """
        keys, per_s, first = heartbeat_keys(partitions), share * rows_a_second(self.rate), self.sent.rows
        began, passed, beaten = clock(), 0.0, 0.0
        while passed < seconds and not stop():
            passed = min(clock() - began, seconds)
            due = first + int(passed * per_s)
            while self.sent.rows < due:
                self._rows(send, due, passed)
            if passed - beaten >= BEAT_S and self.sent.rows:
                beaten = passed
                for key in keys:
                    send(key, heartbeat(self.sent.last_ts_ms))
            sleep(TICK_S)
        return self.sent

    def _rows(self, send: Send, due: int, seconds: float) -> None:
        """The rows to `due`, or to the end of their block."""
        number, start = divmod(self.sent.rows, BLOCK_ROWS)
        rows = block(self.seed, number, self.rate)
        part = slice(start, min(due - number * BLOCK_ROWS, BLOCK_ROWS))
        for key, impression, action in interactions(rows, part):
            send(key, impression)
            if action is not None:
                send(key, action)
        self.made.add(rows, part)
        done, positives = number * BLOCK_ROWS + part.stop, self.sent.actions + int(rows.label[part].sum())
        self.sent = Sent(done, done, positives, BEGIN_MS, int(rows.ts_ms[part.stop - 1]), seconds, rows.digest)


@lru_cache(maxsize=8)
def _labels(seed: int, number: int, rate: float) -> np.ndarray:
    return block(seed, number, rate).label
