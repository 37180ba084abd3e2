"""/metrics of a lake's writer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from headrace.lake.source import Source
from headrace.lake.writer import Writer, lag

log = logging.getLogger(__name__)
MARKS_S = 5.0  # how old the ends of the topic may be in a scrape


class Figures:
    """What is in the lake, and how far behind the topic it is. Of the last writer while a new one begins."""

    def __init__(self, source: Source, now_ms: Callable[[], int]) -> None:
        self.writer: Writer | None = None
        self._now_ms = now_ms
        self._source, self._marks, self._asked_s = source, dict[int, tuple[int, int]](), 0.0

    def describe(self) -> Iterator[Any]:
        yield from ()

    def collect(self) -> Iterator[Any]:
        if (writer := self.writer) is None:
            return
        totals, pending = writer.totals, writer.pending
        yield CounterMetricFamily("headrace_lake_rows", "Samples in the lake, committed.", totals.rows)
        yield CounterMetricFamily("headrace_lake_duplicates", "Further records of a sample, left out.",
                                  totals.duplicates + pending.duplicates)
        yield CounterMetricFamily("headrace_lake_unreadable", "Records that are not readable.", totals.unreadable + pending.unreadable)
        yield CounterMetricFamily("headrace_lake_gap_offsets", "Offsets that retention took before they were read.",
                                  totals.gap + sum(map(len, pending.gaps)))
        yield CounterMetricFamily("headrace_lake_commits", "Commits.", totals.commits)
        yield GaugeMetricFamily("headrace_lake_pending_rows", "Rows that wait for a commit.", pending.rows)
        yield GaugeMetricFamily("headrace_lake_seconds_since_commit", "Since the last commit.",
                                (self._now_ms() - writer.committed_ms) / 1000)
        self._look()
        yield GaugeMetricFamily("headrace_lake_lag_offsets", "Offsets of the topic that are not read yet.",
                                lag(dict(writer.positions), self._marks))

    def _look(self) -> None:
        if time.monotonic() - self._asked_s > MARKS_S:
            try:
                self._marks = self._source.marks()
                self._asked_s = time.monotonic()
            except Exception as error:
                log.warning("the ends of the topic cannot be asked: %s", error)
