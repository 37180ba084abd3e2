"""The queue of what people are to label, of the lake's newest samples and the topic `labels`: read beside the requests, once a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import islice

from headrace.config import Config
from headrace.engine.console.figures import Doubt
from headrace.engine.console.sampler import Away
from headrace.kafka import KafkaUnavailable, Undelivered
from headrace.labels import live
from headrace.labels.label import Label, Unit
from headrace.labels.queue import COLUMNS, Exposures, Next
from headrace.lake.errors import LakeAbsent, LakeAway, LakeDamaged, LakeRewritten
from headrace.lake.reader import Choice, Lake, by_hour, opened
from headrace.schemas.codec import RegistryUnavailable

FRESH_S = 60.0
ROWS_MAX = 1_000_000  # newest samples that the queue is of, and the hour in which they begin
QUEUE_MAX = 5_000
AWAY = (LakeAbsent, LakeAway, LakeDamaged, LakeRewritten, KafkaUnavailable, RegistryUnavailable, Undelivered, OSError)


class Labelling:
    """As engine.console.figures.Labelling, for items and one target. Safe between threads."""

    def __init__(self, config: Config, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.target = config.samples.target
        self._config, self._clock_s = config, clock_s
        self._lock = threading.Lock()
        self._queue: list[Next] | None = None
        self._by: dict[Unit, set[str]] = {}
        self._later: dict[str, set[Unit]] = {}
        self._problem, self._read_s = "", 0.0
        self._reading: threading.Thread | None = None
        self._sink: live.Sink | None = None

    def next(self, labeller: str) -> Doubt | None:
        """What comes next for `labeller`. Raises Away before the lake was read, and when it cannot be."""
        self._refresh()
        with self._lock:
            if self._queue is None:
                raise Away(self._problem or "The lake is being read: ask again in a moment.")
            later = self._later.get(labeller, set())
            left = [one for one in self._queue if labeller not in self._by.get(one.unit, ()) and one.unit not in later]
            if not left:
                return None
            one = left[0]
            return Doubt(one.unit.item_id, one.exposures, one.bits, one.score, len(self._by.get(one.unit, ())), len(left) - 1)

    def put(self, labeller: str, item: str, label: float | None) -> None:
        """Write a label; without one the item waits until the process ends. Raises Away."""
        unit = Unit(item, None, self.target)
        if label is None:
            with self._lock:
                self._later.setdefault(labeller, set()).add(unit)
            return
        try:
            with self._lock:
                if self._sink is None:
                    self._sink = live.Sink(self._config)
                self._sink.put([Label(unit, label, labeller, time.time_ns() // 1_000_000)])
                self._by.setdefault(unit, set()).add(labeller)
        except AWAY as error:
            raise Away(f"The label was not taken: {error}") from None

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()

    def _refresh(self) -> None:
        """Begin to read anew where what was read is old."""
        with self._lock:
            busy = self._reading is not None and self._reading.is_alive()
            if not busy and (self._reading is None or self._clock_s() >= self._read_s + FRESH_S):
                self._reading = threading.Thread(target=self._read, name="labelling", daemon=True)
                self._reading.start()

    def _read(self) -> None:
        try:
            queue, problem = _queue(opened(self._config.lake_place), self.target), ""
            held = live.held(self._config)
        except AWAY as error:
            queue, problem, held = None, str(error), []
        with self._lock:
            self._problem, self._read_s = problem, self._clock_s()
            if queue is not None:
                self._queue = queue
                for one in held:
                    self._by.setdefault(one.unit, set()).add(one.labeller)


def _queue(lake: Lake, target: str) -> list[Next]:
    """The first QUEUE_MAX items of all, labelled or not."""
    shown, rows, since_ms = Exposures(target), 0, None
    for file in sorted(lake.files, key=lambda one: -one.ts_ms_min):
        rows += file.rows
        if rows > ROWS_MAX and since_ms is not None:
            break
        since_ms = file.ts_ms_min
    for table in by_hour(lake, Choice(since_ms=since_ms, target=target), COLUMNS):
        shown.add(table)
    return list(islice(shown.next([]), QUEUE_MAX))
