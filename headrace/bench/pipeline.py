"""The jobs' speed on a stack of its own: all four at once, and each alone on topics that are full, beside the same job with an identity.

Figures are of jobs that are warm: JVMs compile for a minute what they run often. All four jobs together are timed from the first of 200,000
rows to the last, after half as many; jobs alone in the second half of 200,000, or their floors, which come last, would have the warmer JVM.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from headrace import submission
from headrace.access import given
from headrace.bench.recovery import recovery
from headrace.bench.result import Row
from headrace.bench.topics import BEGIN_MS, curve, grown, high, later, rate, sent_rows, until
from headrace.clock import StackClock
from headrace.config import Config
from headrace.flink_rest import FlinkRest
from headrace.live_taps import live_taps
from headrace.own_stack import own_stack
from headrace.taps import Taps

JOBS = ("features", "samples", "train", "vectors")
ROWS, ROWS_QUICK = 200_000, 6_000
KILLS = 3
WARM = 0.5  # share of the output that is not timed: JVM and workers warm up

log = logging.getLogger(__name__)


def measure(quick: bool) -> list[Row]:
    """Rows `all_jobs` (interactions/s; its peer the four floors, one after the other, an interaction each), features, samples, train,
    vectors of their floors, and `recovery`; --quick: all_jobs alone, without a peer."""
    with _stack() as config, live_taps(config) as taps:
        together = _all_jobs(config, taps, ROWS_QUICK if quick else ROWS)
        if quick:
            return [together]
        back = recovery(config, partial(later, 20_000_000_000), lambda: min(taps.applied()), KILLS)
    with _stack() as config:
        each, floor = _each_job(config, ROWS)
    return [replace(together, of="the four identity jobs in turn", of_value=floor), *each, back]


@contextmanager
def _stack() -> Iterator[Config]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, own_stack(Path(folder) / "data", log.info) as config:
        with closing(StackClock(**given(config.engine))) as clock:
            clock.set("log", BEGIN_MS)  # the engine's heartbeats stay behind the rows
        yield config


def _all_jobs(config: Config, taps: Taps, rows: int) -> Row:
    """Interactions sent as fast as they go through four jobs that run and are warm; from the first one sent to the last sample applied: in
    any part of that time one job may be ahead of another."""
    submission.submit(config, list(JOBS))
    first = int(rows * WARM)
    sent_rows(config, first, seed=2)
    until(lambda: min(taps.applied()) >= first, "the first samples")
    began = time.monotonic()
    sent = sent_rows(config, rows, seed=1, after_ms=10_000_000_000)
    until(lambda: min(taps.applied()) >= first + rows, "the last samples")
    return Row("all_jobs", sent.interactions / (time.monotonic() - began), "interactions/s", note=f"{rows} rows, {sent.interactions}"
               f" interactions, {config.flink.train_batch_rows} rows a push, heartbeats not counted")


def _each_job(config: Config, rows: int) -> tuple[list[Row], float]:
    """The jobs alone; interactions/s when each goes through the four floors, and these take turns at the machine."""
    sent = sent_rows(config, rows, seed=1)
    # With the heartbeats that close the last window: without them the samples job would wait for ever.
    enriched, touched = high(config, "interactions"), f"touched.{config.model.name}"
    topics = {"features": "enriched", "samples": "samples", "train": touched, "vectors": "vectors"}
    wanted = {"features": enriched, "samples": rows}
    with live_taps(config) as taps:
        inputs = {"features": sent.interactions, "samples": sent.interactions, "train": rows}
        alone: dict[str, float] = {}
        for name in JOBS:
            applied = (lambda: min(taps.applied()) >= rows) if name == "train" else None
            alone[name] = _alone(config, name, topics[name], wanted.get(name), applied)
    inputs["vectors"] = high(config, touched)
    wanted["train"] = 2 * rows
    made, floors_s = [], 0.0
    for name in JOBS:
        floor = _alone(config, f"{name}-floor", topics[name], wanted.get(name))
        unit = {"train": "samples/s", "vectors": "touched ids/s"}.get(name, "interactions/s")
        made.append(Row(name, alone[name] * inputs[name], unit, "the same job with an identity", floor * inputs[name],
                        "alone, from a full topic"))
        floors_s += 1 / floor
    return made, sent.interactions / floors_s


def _alone(config: Config, name: str, topic: str, wanted: int | None, over: Callable[[], bool] | None = None) -> float:
    """Share of the job's work done a second, once it is warm: it runs alone until `over`, or its topic has `wanted` records more, or
    without these stands still (heartbeats never do), and is cancelled. The times are the broker's: a busy machine looks too seldom."""
    first, began_ms = high(config, topic), time.time_ns() // 1_000_000
    job = submission.submit(config, [name])[name]
    if over is not None:
        until(over, f"the end of {name}")
    else:
        curve(lambda: high(config, topic) - first, wanted)
    ended_ms = time.time_ns() // 1_000_000
    FlinkRest(config.flink.url).cancel(job)
    seen = grown(config, topic, first, began_ms, ended_ms)
    return rate(seen, WARM) / seen[-1][1]
