"""Impressions/s through the features job and the join, with 12 definitions frozen and a window of half an hour; and what open ones take.

`join`: both jobs at once from a full topic of interactions, on all cores, warm; its peer is the samples job alone from a full `enriched`:
the same SQL with no Python and no features beside it. Event time is such that 100,000 exposures are open at any moment. `features`: that
job alone. `state`: bytes of a checkpoint of the samples job for each exposure whose window is open, at the most of them; `state.growth`:
that, of what an exposure took at a quarter of them (1: in proportion). The timed parts have their state on the heap of a TaskManager that
is made larger, some 9 KB for an open exposure; a million of them are in RocksDB (docs/streaming.md).
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from headrace import submission
from headrace.access import given
from headrace.bench.features_events import DEFINITIONS
from headrace.bench.result import Row
from headrace.bench.topics import BEGIN_MS, curve, grown, high, rate, sent_rows, until
from headrace.clock import StackClock
from headrace.config import Config
from headrace.flink_rest import FlinkRest
from headrace.own_stack import own_stack

WINDOW_MS = 1_800_000
OPEN, OPEN_QUICK = 100_000, 1_000  # exposures that are open while the join is timed
ROWS, ROWS_QUICK = 300_000, 6_000
MOST, MOST_QUICK = 1_000_000, 4_000  # open ones, for their state
TASKMANAGER_MB = 7_000
LATER_MS = 100_000_000_000
WARM = 0.5
STATE_S = 1800.0  # until a million exposures are in the state
CHECKPOINTS = 2  # that begin after all was read
JOIN_OF_SQL = 0.5

log = logging.getLogger(__name__)


def measure(quick: bool) -> list[Row]:
    """Rows join, features (impressions/s), state (bytes an open exposure) and state.growth."""
    rows, opened, most = (ROWS_QUICK, OPEN_QUICK, MOST_QUICK) if quick else (ROWS, OPEN, MOST)
    every_ms = WINDOW_MS / opened
    with _stack(quick) as config:
        sent_rows(config, rows, seed=1, every_ms=every_ms)
        features = _timed(config, ["features"], "enriched", high(config, "interactions")) * rows
        sql = _timed(config, ["samples"], "samples", rows) * rows
        sent_rows(config, rows, seed=2, after_ms=LATER_MS, every_ms=every_ms)
        both = _timed(config, ["features", "samples"], "samples", rows) * rows
    with _stack(quick, state_backend="rocksdb") as config:  # a million on the heap are 9 GB of it
        quarter, whole = _state(config, most)
    note = f"12 features, window {WINDOW_MS // 60_000} min, {opened:,} exposures open"
    return [Row("join", both, "impressions/s", "the samples job's SQL alone", sql, f"goal {JOIN_OF_SQL:g}; {note}, {rows:,} exposures"),
            Row("features", features, "impressions/s", "the samples job's SQL alone", sql, "the features job alone"),
            Row("state", whole / most, "bytes", note=f"an open exposure of {most:,}, in a checkpoint of {whole / 1e6:,.0f} MB"),
            Row("state.growth", (whole / most) / (quarter / (most // 4)), "of a quarter of them", note="1: in proportion")]


@contextmanager
def _stack(quick: bool, **flink: Any) -> Iterator[Config]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        file = Path(folder) / "features.toml"
        file.write_text(DEFINITIONS)
        settings: dict[str, dict[str, Any]] = {"features": {"definitions": [file]}, "samples": {"window_ms": WINDOW_MS}}
        settings["flink"] = flink if quick else {"taskmanager_mb": TASKMANAGER_MB, **flink}
        with own_stack(Path(folder) / "data", log.info, settings=settings) as config:
            with closing(StackClock(**given(config.engine))) as clock:
                clock.set("log", BEGIN_MS)  # the engine's heartbeats stay behind the rows
            yield config


def _timed(config: Config, jobs: list[str], topic: str, wanted: int) -> float:
    """Share of `wanted` records of `topic` that `jobs` bring a second in the half that is warm; they are cancelled then."""
    first, began_ms = high(config, topic), time.time_ns() // 1_000_000
    ids = submission.submit(config, jobs)
    curve(lambda: high(config, topic) - first, wanted)
    ended_ms = time.time_ns() // 1_000_000
    flink = FlinkRest(config.flink.url)
    for job in ids.values():
        flink.cancel(job)
    until(lambda: not flink.alive(), "the end of the jobs")
    seen = grown(config, topic, first, began_ms, ended_ms)
    return rate(seen, WARM) / seen[-1][1]


def _state(config: Config, most: int) -> tuple[int, int]:
    """Bytes of the samples job's state with a quarter of `most` exposures open, and with all."""
    every_ms = WINDOW_MS / 2 / most  # the first is open when the last comes
    job, flink, sizes, sent = submission.submit(config, ["features", "samples"])["samples"], FlinkRest(config.flink.url), [], 0
    for seed, rows in enumerate((most // 4, most - most // 4)):
        sent_rows(config, rows, seed=seed + 1, after_ms=int(sent * every_ms), every_ms=every_ms, closed=False)
        sent += rows
        until(lambda: high(config, "enriched") >= high(config, "interactions"), "all events in enriched", STATE_S)
        sizes.append(_settled(flink, job))
    return sizes[0], sizes[1]


def _settled(flink: FlinkRest, job: str) -> int:
    """Bytes of the state in a checkpoint that does not differ from the one before by a hundredth: all that was sent is in it."""
    seen: list[tuple[int, int]] = [(-1, 0)]

    def still() -> bool:
        number, size = flink.state(job)
        if number > seen[-1][0]:
            seen.append((number, size))
        return len(seen) > CHECKPOINTS and size > 0 and all(abs(one - size) <= size / 100 for _, one in seen[-CHECKPOINTS:])

    until(still, "a checkpoint that holds all that was sent")
    return seen[-1][1]
