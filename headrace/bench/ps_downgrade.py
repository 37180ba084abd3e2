"""The guard against trouble in a simulated world: how soon it is seen, how soon a good version serves, what it saves, and false trips.

Each trouble is met twice in the same world, by a platform with the guard and by one that serves live whatever happens. Costs are by the
world's own probabilities, not by what the log reported (headrace/bench/downgrade_world.py). Hours are simulated; intervals are of 15
minutes and windows of an hour or 2,000 samples, whichever is longer, so that nights see less than days.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np

from headrace import config
from headrace.bench.downgrade_world import BOUNDS, Course, Trouble, course, sized
from headrace.bench.result import Row
from headrace.config import Model
from headrace.simulator.scenario import load
from headrace.watch.downgrade import LIVE, Bounds

NEVER = float("inf")
Asked = tuple["Plan", Trouble, int, bool, Model]


@dataclass(frozen=True)
class Plan:
    """Sizes of a run. Clean worlds are of `clean_h` hours each, of which those after `settled_h` count for false trips."""

    users: int
    items: int
    hours: float
    first: float
    last: float
    clean_h: float
    settled_h: float
    clean_seeds: int
    troubles: tuple[Trouble, ...]
    bounds: Bounds = BOUNDS

    @property
    def all(self) -> tuple[Trouble, ...]:
        return tuple(replace(one, first=self.first, last=self.last) for one in self.troubles)


FLIPS = (Trouble("labels_100", share=1.0), Trouble("labels_20", share=0.2))
FULL = Plan(1200, 1200, 96, 48, 66, 84, 24, 2,
            (*FLIPS, Trouble("labels_5", share=0.05), Trouble("drift_20", share=0.2, creeping=True), Trouble("stuck", stuck="item_id")))
QUICK = Plan(500, 500, 36, 20, 28, 0, 0, 0, (Trouble("labels_100", share=1.0),), replace(BOUNDS, samples_min=800, every_s=2 * 3600))
CLEAN = Trouble("clean", NEVER, NEVER)
TASTES = "drift"


def measure(quick: bool) -> list[Row]:
    """Rows downgrade.TROUBLE.detect, .serve (simulated hours from its beginning),
    .loss (nats, the truth's), and downgrade.clean: hours without a false step."""
    plan, model = QUICK if quick else FULL, config.load(stack=False).model
    asked: list[Asked] = [(plan, trouble, 0, guarded, model) for trouble in plan.all for guarded in (True, False)]
    asked += [(plan, CLEAN, seed, True, model) for seed in range(1, 1 + plan.clean_seeds)]
    asked += [(plan, replace(CLEAN, name=TASTES), 1, guarded, model) for guarded in (True, False) if plan.clean_seeds]
    with ProcessPoolExecutor(min(len(asked), len(os.sched_getaffinity(0))), mp_context=get_context("spawn")) as pool:
        done = list(pool.map(one, asked))
    by = {(trouble.name, seed, guarded): found for (_, trouble, seed, guarded, _), found in zip(asked, done, strict=True)}
    rows = [row for trouble in plan.all for row in of(plan, trouble, by[trouble.name, 0, True], by[trouble.name, 0, False])]
    if not plan.clean_seeds:
        return [*rows, clean([(by[plan.all[0].name, 0, True], 0.0, plan.first)], "before the trouble")]
    spans = [(by[CLEAN.name, seed, True], plan.settled_h, plan.clean_h) for seed in range(1, 1 + plan.clean_seeds)]
    told = f"in {len(spans)} worlds, from hour {plan.settled_h:g}"
    return [*rows, clean(spans, told), tastes(plan, by[TASTES, 1, True], by[TASTES, 1, False])]


def one(asked: Asked) -> Course:
    plan, trouble, seed, guarded, model = asked
    scenario = load(TASTES if trouble.name == TASTES else "calm")
    hours = plan.clean_h if trouble.first == NEVER else plan.hours
    return course(sized(scenario, plan.users, plan.items, hours), seed, trouble, guarded, model, plan.bounds)


def of(plan: Plan, trouble: Trouble, guarded: Course, alone: Course) -> list[Row]:
    """The rows of a trouble."""
    at_first = int(np.searchsorted(guarded.hour, trouble.first))
    samples_before = int(guarded.samples[max(0, at_first - 1)])
    rows = []
    seen = next(((hour, samples, step) for hour, samples, step in guarded.steps if step.kind == "alarm" and hour >= trouble.first), None)
    moved = next(((hour, samples, step) for hour, samples, step in guarded.steps
                  if step.kind == "serve" and step.version != LIVE and hour >= trouble.first), None)
    lasts = ("what the trouble lasts", trouble.last - trouble.first)
    for name, found in (("detect", seen), ("serve", moved)):
        if found is None or found[0] > trouble.last:
            note = "not within the trouble" if found is None else f"only {found[0] - trouble.last:.2f} h after its end: {found[2].reason}"
            rows.append(Row(f"downgrade.{trouble.name}.{name}", NEVER, "h", *lasts, note))
        else:
            note = f"after {found[1] - samples_before:,} samples; {found[2].reason}"
            rows.append(Row(f"downgrade.{trouble.name}.{name}", found[0] - trouble.first, "h", *lasts, note))
    within, after = (trouble.first, trouble.last), (trouble.last, plan.hours)
    back = next((hour for hour, _, step in guarded.steps if step.kind == "serve" and step.version == LIVE and hour >= trouble.first), None)
    told = "live did not return" if back is None else f"live returned {back - trouble.last:.1f} h after its end"
    rows.append(Row(f"downgrade.{trouble.name}.loss", mean(guarded, *within), "nats", "without the guard", mean(alone, *within),
                    f"while it lasts, {trouble.last - trouble.first:g} h; before {mean(guarded, trouble.first - 12, trouble.first):.4f};"
                    f" after it {mean(guarded, *after):.4f}, without {mean(alone, *after):.4f}; clicks a request while it lasts"
                    f" {mean(guarded, *within, 'clicks'):.3f}, without {mean(alone, *within, 'clicks'):.3f};"
                    f" {told if moved else 'it never stepped back'}"))
    return rows


def clean(spans: list[tuple[Course, float, float]], why: str) -> Row:
    """Hours without trouble, each Course's from the first to the last, in which live was served, of all that there were: all, without a
    false step."""
    hours = sum(last - first for _, first, last in spans)
    steps = [step for found, first, last in spans for hour, _, step in found.steps if first <= hour < last]
    lived = sum(float((found.served[at] == LIVE).mean()) * (last - first) for found, first, last in spans
                for at in [(found.hour >= first) & (found.hour < last)])
    counts = {kind: sum(step.kind == kind for step in steps) for kind in ("serve", "alarm", "publish")}
    return Row("downgrade.clean", lived, "clean hours", "all of them", hours, f"live served, {why}: {counts['serve']} false steps,"
               f" {counts['alarm']} alarms, {counts['publish']} versions published")


def tastes(plan: Plan, guarded: Course, alone: Course) -> Row:
    """Tastes that move within days: what live is for."""
    moved = sum(step.kind == "serve" for _, _, step in guarded.steps)
    span = (plan.settled_h, plan.clean_h)
    return Row("downgrade.tastes.loss", mean(guarded, *span), "nats", "without the guard", mean(alone, *span),
               f"tastes move within days (scenario drift): {moved} steps; it should follow live")


def mean(course_: Course, first: float, last: float, what: str = "loss") -> float:
    at = (course_.hour >= first) & (course_.hour < last)
    return float(getattr(course_, what)[at].mean())
