"""How fresh what is served is: the newest cause that a hop has seen, and how old it was when it arrived there."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from headrace.rpc.errors import BadMessage

KEPT = 2048
AGE_MAX_MS = 3_600_000  # older is a log that is replayed in its own time, and says nothing of freshness
WINDOW_MS = 300_000  # of this many ms are the quantiles: a stream that rests is not judged by what it did before
GAP_MS = 1_000
QUANTILES = (0.5, 0.99)


class Newest(NamedTuple):
    """A cause (source, partition, offset) and the event time, in ms, of what brought it about: a positive's action, else the exposure."""

    source: int
    partition: int
    offset: int
    ts_ms: int


def newer(one: Newest | None, other: Newest | None) -> Newest | None:
    """The one of the later event time; None is older than any."""
    return max((each for each in (one, other) if each is not None), key=lambda each: each.ts_ms, default=None)


def of_rows(source: np.ndarray, partition: np.ndarray, offset: np.ndarray, ts_ms: np.ndarray) -> Newest | None:
    """The newest of n rows, columns as of a batch; None for none."""
    if not len(ts_ms):
        return None
    at = int(np.argmax(ts_ms))
    return Newest(int(source[at]), int(partition[at]), int(offset[at]), int(ts_ms[at]))


def to_header(newest: Newest | None) -> list[int] | None:
    """As it travels in a header."""
    return None if newest is None else list(newest)


def from_header(value: Any) -> Newest | None:
    """Newest of a header's list of four numbers, None when there is none. Raises BadMessage."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(part, int) for part in value):
        raise BadMessage(f"newest is {str(value)[:80]}, expected source, partition, offset and ts_ms")
    return Newest(*value)


class Hop:
    """Ages of the newest causes at hop `name`, as they arrived: a Prometheus collector of their quantiles over the last five minutes, of at
    most 2,048.

    `observe` may be called with what was seen before: only a later event time counts, so a quiet stream does not look stale. `asked`: the
    hop sees a cause only when somebody asks, as a recommendation does; then an age counts only when the call before was within a second,
    since what came in a longer pause has aged by the pause and not on its way.
    """

    def __init__(self, name: str, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, *, asked: bool = False) -> None:
        self.name, self._now_ms, self._asked = name, now_ms, asked
        self._ages: deque[tuple[int, float]] = deque(maxlen=KEPT)  # when it arrived, its age
        self._lock = threading.Lock()
        self._last_ms = self._count = 0
        self._called_ms = -GAP_MS

    def observe(self, newest: Newest | None) -> None:
        """Note that `newest` has arrived now."""
        now_ms = self._now_ms()
        told = not self._asked or now_ms - self._called_ms < GAP_MS
        self._called_ms = now_ms
        if newest is None or newest.ts_ms <= self._last_ms:
            return
        self._last_ms = newest.ts_ms
        age_ms = now_ms - newest.ts_ms
        if age_ms <= AGE_MAX_MS:
            with self._lock:
                self._count += 1
                if told:
                    self._ages.append((now_ms, max(0.0, age_ms)))

    @property
    def count(self) -> int:
        """Times that a newer cause arrived."""
        return self._count

    def quantiles_ms(self) -> dict[float, float]:
        """{0.5: ms, 0.99: ms} of the last five minutes; empty when nothing arrived in them."""
        since_ms = self._now_ms() - WINDOW_MS
        with self._lock:
            ages = np.array([age for arrived_ms, age in self._ages if arrived_ms >= since_ms])
        return {q: float(np.quantile(ages, q)) for q in QUANTILES} if len(ages) else {}

    def collect(self) -> Iterable[Any]:
        ages = GaugeMetricFamily("headrace_hop_ms", "Age of the newest cause when it reached this hop, ms, over 5 minutes.",
                                 labels=["hop", "quantile"])
        for quantile, value in self.quantiles_ms().items():
            ages.add_metric([self.name, str(quantile)], value)
        yield ages
        seen = CounterMetricFamily("headrace_hop_causes", "Times that a newer cause reached this hop.", labels=["hop"])
        seen.add_metric([self.name], self._count)
        yield seen
