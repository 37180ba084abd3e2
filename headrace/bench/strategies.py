"""When a label is learnt, under delays of half an hour and more: `wait`, `eager` and `fast` beside an oracle that knows each at once.

The world is the bundled scenario `delay`: clicks come with a median of half an hour, and the attribution window has six. All strategies
have the same log, of lists by an editor, and the same features, frozen at each exposure while clicks are folded when they come. Each
request is predicted with what had been learnt by its time, and is scored against the final label, never against one that is provisional.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace import config
from headrace.bench.result import Row
from headrace.config import Features, Model
from headrace.features.events import EventBatch
from headrace.features.layout import IMPRESSION
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.models.batch import Batch, unique
from headrace.models.catalog import MODELS
from headrace.models.fm import probability
from headrace.models.kernels import CONFIRMED, PROVISIONAL, WHOLE
from headrace.models.train import Trainer, local_rate
from headrace.offline import RING, Parameters, causes_of
from headrace.simulator import log as editor
from headrace.simulator.scenario import load
from headrace.simulator.world import World
from headrace.streaming.model_inputs import inputs_of

ORACLE = "oracle"
STRATEGIES = (ORACLE, "wait", "eager", "fast")
HOUR_MS = 3_600_000
ROWS_A_CALL = 2048
PUSH_ROWS = 1024


@dataclass(frozen=True)
class Plan:
    """Sizes of a run; calibration is of what comes after the first `settled` hours."""

    users: int
    items: int
    days: int
    settled: int


FULL = Plan(users=1000, items=2000, days=4, settled=24)
QUICK = Plan(users=150, items=300, days=1, settled=12)


class Exposures(NamedTuple):
    """n exposures in time order: inputs of the model uint64[n,F] and float32[n,F], final label float32[n], event time and that of the
    click (where there is one) in ms, int64[n], the window in ms."""

    keys: np.ndarray
    values: np.ndarray
    label: np.ndarray
    ts_ms: np.ndarray
    click_ms: np.ndarray
    window_ms: int


class Lessons(NamedTuple):
    """m things to learn in the order of time: when, in ms int64[m], of which exposure int64[m], label float32[m], stage uint8[m]."""

    at_ms: np.ndarray
    exposure: np.ndarray
    label: np.ndarray
    stage: np.ndarray


def measure(quick: bool) -> list[Row]:
    """Rows logloss.STRATEGY.hour1, .day1 and .later (nats an exposure, of the oracle's) and calibration.STRATEGY (mean predicted / mean
    label after the first day)."""
    plan, model = QUICK if quick else FULL, config.load(stack=False).model
    log = exposures(plan)
    workers = min(len(STRATEGIES), len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        found = pool.map(predicted, [log] * len(STRATEGIES), [model] * len(STRATEGIES), STRATEGIES)
        return rows(plan, log, dict(zip(STRATEGIES, found, strict=True)))


def rows(plan: Plan, log: Exposures, found: dict[str, np.ndarray]) -> list[Row]:
    """Of the probabilities float32[n] that each strategy gave."""
    hour = (log.ts_ms - log.ts_ms[0]) / HOUR_MS
    spans = {"hour1": hour < 1, f"hour{plan.settled}": hour < plan.settled, "later": hour >= plan.settled}
    note = f"{len(log.label):,} exposures of {plan.users} users, {log.label.mean():.1%} clicked, window {log.window_ms / HOUR_MS:g} h"
    made = []
    for span, at in spans.items():
        loss = {name: logloss(p[at], log.label[at]) for name, p in found.items()}
        made += [Row(f"logloss.{name}.{span}", value, "nats", ORACLE, loss[ORACLE], note) for name, value in loss.items()]
    later = spans["later"]
    return made + [Row(f"calibration.{name}", float(p[later].mean() / log.label[later].mean()), "predicted/label", note=note)
                   for name, p in found.items()]


def logloss(p: np.ndarray, label: np.ndarray) -> float:
    """Nats a sample of float32[n] against labels of 0 and 1."""
    held = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.log(np.where(label > 0, held, 1 - held)).mean())


def lessons(log: Exposures, strategy: str) -> Lessons:
    """What a strategy has to learn, and when. ValueError for a strategy that is none."""
    every, clicked = np.arange(len(log.label)), log.label > 0
    closed = log.ts_ms + log.window_ms
    whole = np.full(len(every), WHOLE, np.uint8)
    if strategy == "fast":
        first = Lessons(log.ts_ms, every, 0 * log.label, np.full(len(every), PROVISIONAL, np.uint8))
        second = Lessons(log.click_ms[clicked], every[clicked], log.label[clicked], np.full(int(clicked.sum()), CONFIRMED, np.uint8))
        made = Lessons(*(np.concatenate(column) for column in zip(first, second, strict=True)))
    else:
        at = {ORACLE: log.ts_ms, "wait": closed, "eager": np.where(clicked, log.click_ms, closed)}
        if strategy not in at:
            raise ValueError(f"no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
        made = Lessons(at[strategy], every, log.label, whole)
    order = np.argsort(made.at_ms, kind="stable")
    return Lessons(*(column[order] for column in made))


def predicted(log: Exposures, model: Model, strategy: str) -> np.ndarray:
    """float32[n]: each exposure's probability by what `strategy` had learnt when its request came."""
    todo, parameters = lessons(log, strategy), Parameters(model)
    learner = MODELS[model.name](inputs_of().fields)
    trainer = Trainer(learner, parameters.pull, parameters.push, model.l2, model.window_offsets,
                      rate=local_rate(model.optimizer, model.learning_rate))
    begins = np.flatnonzero(np.r_[True, np.diff(log.ts_ms) > 0])
    out, done = np.empty(len(log.label), np.float32), 0
    for start, stop in zip(begins, np.r_[begins[1:], len(out)], strict=True):
        due = int(np.searchsorted(todo.at_ms, log.ts_ms[start]))
        for first in range(done, due, PUSH_ROWS):
            part = slice(first, min(first + PUSH_ROWS, due))
            of = todo.exposure[part]
            batch = Batch(log.keys[of], log.values[of], todo.label[part], np.ones(len(of), np.float32), todo.stage[part])
            trainer.learn(batch, causes_of(np.arange(part.start, part.stop)), np.full(len(of), 0.5, np.float32))
        done = due
        shown = Batch(log.keys[start:stop], log.values[start:stop], log.label[start:stop], log.label[start:stop])
        keys, places = unique(shown)
        out[start:stop] = probability(learner.predict(parameters.pull(model.name, "weights", keys)[0], places, shown.values))
    return out


def exposures(plan: Plan, seed: int = 0) -> Exposures:
    """The log of a world, its features frozen in the order of event time."""
    world = World(load("delay").sized(users=plan.users, items=plan.items, days=plan.days), seed)
    log = editor.write(world)
    click_ms = log.ts_ms + log.outcome.delay_ms
    due = sorted([(int(ts_ms), n, "impression") for n, ts_ms in enumerate(log.ts_ms)]
                 + [(int(click_ms[n]), int(n), "click") for n in np.nonzero(log.label)[0]])
    inputs, parts = inputs_of(), []
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        store = FeatureStore(Path(folder))
        try:
            shard = FeatureShard(store, half_life_s=Features().half_life_s, ring_length=RING, frozen_offsets=4096)
            for start in range(0, len(due), ROWS_A_CALL):
                part = due[start : start + ROWS_A_CALL]
                events = EventBatch([_record(world, log, *event) for event in part]).columns
                frozen = shard.freeze_and_fold(causes_of(np.arange(start, start + len(part))), events)
                shown = events["action"] == IMPRESSION
                parts.append(inputs.expand(frozen.keys[shown], frozen.values[shown], frozen.numbers[shown]))
        finally:
            store.close()
    keys, values = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:2])
    return Exposures(keys, values, log.label.astype(np.float32), log.ts_ms, click_ms, int(world.scenario.actions.window_s * 1000))


def _record(world: World, log: editor.Log, ts_ms: int, n: int, action: str) -> dict[str, Any]:
    user, item = int(log.user[n]), int(log.item[n])
    context = {f"user.{name}": value for name, value in world.users.fields(user).items()}
    context |= {f"item.{name}": value for name, value in world.items.fields(item).items()}
    if action == "impression":
        context |= world.context(ts_ms)
    return {"event_id": f"{n}:{action}", "request_id": f"r{log.request[n]}", "scene": "feed", "user_id": world.users.name(user),
            "item_id": world.items.name(item), "action": action, "value": 1.0, "position": None, "ts_ms": ts_ms, "context": context,
            "exposure": None}
