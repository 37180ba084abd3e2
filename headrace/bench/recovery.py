"""How long the whole cluster takes to be back after the death of its TaskManager, under a moderate stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from statistics import median

from headrace.bench.replay_encode import invented
from headrace.bench.result import Row
from headrace.config import Config
from headrace.flink_rest import FlinkRest, FlinkUnavailable
from headrace.rows import Rows
from headrace.verify.stream import Stream
from headrace.verify.victims import find, is_back

TASKMANAGER = "flink-taskmanager"
GOAL_S = 30.0
RATE, ROWS = 200.0, 60_000  # rows a second, and more of them than three recoveries take
DEADLINE_S = 180.0
LOOK_S = 0.2


def recovery(config: Config, later: Callable[[Rows], Rows], applied: Callable[[], int], kills: int) -> Row:
    """Median of `kills`: seconds from the TaskManager's end until its successor is ready, every task of every job runs, and a sample has
    been learnt since. `later` moves invented rows behind what the stack has had; `applied` counts samples learnt by every shard."""
    over = threading.Event()
    stream = Stream(config, later(invented(ROWS, seed=3)), RATE, 0, lambda: 0.0, over.is_set)
    sender = threading.Thread(target=stream.run, name="stream", daemon=True)
    before = applied()
    sender.start()
    try:
        _until(lambda: applied() > before, "the stream is not learnt from")
        jobs = set(FlinkRest(config.flink.url).running())
        took = [_one(config, jobs, applied) for _ in range(kills)]
    finally:
        over.set()
        sender.join(DEADLINE_S)
    note = f"TaskManager ended {kills} times at {RATE:.0f} rows/s, worst {max(took):.1f} s"
    return Row("recovery", median(took), "s", "goal", GOAL_S, note)


def _one(config: Config, jobs: set[str], applied: Callable[[], int]) -> float:
    victim = find(config.stack.data_dir, TASKMANAGER, min)
    victim.kill()
    began = time.monotonic()
    _until(lambda: is_back(config.stack.data_dir, victim), "the TaskManager is not ready again")
    _until(lambda: _all_run(config, jobs), "the jobs do not run again")
    base = applied()
    _until(lambda: applied() > base, "nothing is learnt")
    return time.monotonic() - began


def _all_run(config: Config, jobs: set[str]) -> bool:
    rest = FlinkRest(config.flink.url)
    try:
        running = rest.running()
        return jobs <= running.keys() and all(rest.ready(running[name]["jid"]) for name in jobs)
    except FlinkUnavailable:
        return False


def _until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} after {DEADLINE_S:.0f} s")
        time.sleep(LOOK_S)
