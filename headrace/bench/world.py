"""Regret in simulated worlds: the product against items' popularity and its own copy of last midnight, before and after a shock.

Ours is the model of the configuration (headrace.toml, HEADRACE_MODEL__L2 and so on). Regret is the share of the best lists' expected
clicks that a policy's lists lack, by the world's own probabilities: no click is drawn to measure it. The worlds are the bundled scenario
`shock` with the shock after two weeks; each seed is a world of its own, and all policies meet the same one. An interval is Student's, of
95 %, over the seeds; differences are taken within a world first.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from headrace import config
from headrace.bench.result import LOST, Row
from headrace.bench.world_policies import EXPLORE, POLICIES, run
from headrace.config import Model
from headrace.simulator.scenario import load
from headrace.simulator.world import World

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # 97.5 % at 1, 2, .. 9 degrees of freedom
WINDOW_H = 12  # of the mean that says when regret is back: what a world of this size needs to be told from its noise
BACK = 1.1
RANDOM = "random"


@dataclass(frozen=True)
class Plan:
    """Sizes of a run, in simulated days: the first `half` against the last `end` before the shock at `shock_day`; `days` in all."""

    seeds: int
    users: int
    items: int
    days: int
    half: float
    end: float
    shock_day: float
    shocked: float

    def world(self, seed: int) -> World:
        scenario = load("shock")
        assert scenario.shock is not None, "the scenario has a shock"
        size = replace(scenario.size, users=self.users, items=self.items, days=self.days)
        return World(replace(scenario, size=size, shock=replace(scenario.shock, day=self.shock_day)), seed)


FULL = Plan(seeds=10, users=300, items=2000, days=18, half=7.0, end=2.0, shock_day=14.5, shocked=2.0)
QUICK = Plan(seeds=2, users=60, items=400, days=4, half=1.0, end=1.0, shock_day=2.5, shocked=1.0)


@dataclass(frozen=True)
class Course:
    """One policy in one world, by request: day float64[R], expected clicks of the best list and of the policy's float64[R]."""

    day: np.ndarray
    best: np.ndarray
    shown: np.ndarray

    def lost(self, first: float, last: float) -> float:
        """Share of the best lists' expected clicks lost from day `first` up to `last`."""
        at = (self.day >= first) & (self.day < last)
        return 1 - float(self.shown[at].sum() / self.best[at].sum())

    def before(self, plan: Plan) -> float:
        """Share lost in the last days before the shock."""
        return self.lost(plan.shock_day - plan.end, plan.shock_day)

    def recovery_h(self, plan: Plan, before: float) -> tuple[float, bool]:
        """Hours from the shock until the share lost within the last WINDOW_H of them is at most BACK times `before`; and whether that came
        to pass: if not, the hours there were."""
        hours = int((plan.days - plan.shock_day) * 24)
        for hour in range(WINDOW_H, hours + 1):
            until = plan.shock_day + hour / 24
            if self.lost(until - WINDOW_H / 24, until) <= BACK * before:
                return float(hour), True
        return float(hours), False


def measure(quick: bool) -> list[Row]:
    """Rows regret.POLICY.week1, .end, .shock (share lost), recovery.POLICY and recovery.POLICY.common (simulated hours, to the policy's
    own level before the shock; to the daily copy's, a level that means the same to both) and clicks.POLICY.end."""
    plan = QUICK if quick else FULL
    model = config.load(stack=False).model
    return rows(plan, courses(plan, model), model)


def courses(plan: Plan, model: Model) -> dict[str, list[Course]]:
    """Of each policy the course in each seed's world, on as many processes as there are cores; `random` comes without a run."""
    asked = [(plan, model, seed, name) for seed in range(plan.seeds) for name in reversed(POLICIES)]  # the long ones first
    workers = min(len(asked), len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(course, *zip(*asked, strict=True)))
    found: dict[str, list[Course]] = {name: [] for name in (*POLICIES, RANDOM)}
    for (_, _, _, name), (one, by_chance) in zip(asked, done, strict=True):
        found[name].append(one)
        if name == "popularity":
            found[RANDOM].append(replace(one, shown=by_chance))
    return found


def course(plan: Plan, model: Model, seed: int, name: str) -> tuple[Course, np.ndarray]:
    """The course of policy `name` in the world of `seed`, and the expected clicks float64[R] of lists by chance."""
    world = plan.world(seed)
    truth = world.candidate_probabilities()
    there = (world.requests.candidates >= 0).sum(axis=1)
    by_chance = truth.sum(axis=1) / np.maximum(1, there) * world.expected(np.ones(world.slots))
    with tempfile.TemporaryDirectory(prefix="headrace-world-") as folder:
        shown = run(world, name, Path(folder), model)
    return Course(world.day(world.requests.ts_ms), world.optimum(truth), shown), by_chance


def rows(plan: Plan, of: dict[str, list[Course]], model: Model) -> list[Row]:
    """The figures of courses by policy, which `model` ran in."""
    week1, end = (0.0, plan.half), (plan.shock_day - plan.end, plan.shock_day)
    after = (plan.shock_day, plan.shock_day + plan.shocked)
    lost = {(name, span): np.array([one.lost(*span) for one in of[name]]) for name in of for span in (week1, end, after)}
    size = f"{plan.seeds} worlds of {plan.users} users and {plan.items} items, {model.name}, l2 {model.l2:g}; "

    def row(name: str, policy: str, span: tuple[float, float], peer: str, peer_span: tuple[float, float]) -> Row:
        mine, theirs = lost[policy, span], lost[peer, peer_span]
        when = f"day {span[0]:g} to {span[1]:g}"
        peers = peer if span == peer_span else f"{peer}, day {peer_span[0]:g} to {peer_span[1]:g}"
        note = f"{size if name.endswith('week1') else ''}{when}: {interval(mine)}; less that of {peers}: {interval(mine - theirs)}"
        return Row(name, float(mine.mean()), LOST, peers, float(theirs.mean()), note)

    found = [
        row("regret.online.week1", "online", week1, RANDOM, week1),
        row("regret.online.end", "online", end, "online", week1),
        row("regret.popularity.week1", "popularity", week1, "online", week1),
        row("regret.popularity.end", "popularity", end, "online", end),
        row("regret.daily.week1", "daily", week1, "online", week1),
        row("regret.daily.end", "daily", end, "online", end),
        row("regret.online.shock", "online", after, "daily", after),
        row("regret.daily.shock", "daily", after, "online", after),
        row("regret.popularity.shock", "popularity", after, "online", after),
    ]
    return [*found, *_recoveries(plan, of), _clicks(of, end)]


def _recoveries(plan: Plan, of: dict[str, list[Course]]) -> list[Row]:
    own = {name: [one.recovery_h(plan, one.before(plan)) for one in of[name]] for name in ("online", "daily")}
    common = {name: [one.recovery_h(plan, daily.before(plan)) for one, daily in zip(of[name], of["daily"], strict=True)] for name in own}
    return _recovery("", "before", own) + _recovery(".common", "the daily copy's before", common)


def _recovery(suffix: str, level: str, hours: dict[str, list[tuple[float, bool]]]) -> list[Row]:
    found = []
    for name, peer in (("online", "daily"), ("daily", "online")):
        mine, theirs = (np.array([hour for hour, _ in hours[which]]) for which in (name, peer))
        never = sum(not came for _, came in hours[name])
        note = (f"simulated, until the last {WINDOW_H} h are within {BACK - 1:.0%} of {level}: {interval(mine)}, median"
                f" {np.median(mine):.0f}; less that of {peer}: {interval(mine - theirs)}"
                + (f"; not within the {max(mine):.0f} h there were in {never} of {len(mine)}, counted as these" if never else ""))
        found.append(Row(f"recovery.{name}{suffix}", float(mine.mean()), "h", peer, float(theirs.mean()), note))
    return found


def _clicks(of: dict[str, list[Course]], end: tuple[float, float]) -> Row:
    """What the shares are of: expected clicks an impression."""
    slots = load("shock").size.slots

    def rate(column: str, name: str) -> float:
        return float(np.mean([getattr(one, column)[(one.day >= end[0]) & (one.day < end[1])].mean() for one in of[name]])) / slots

    others = ", ".join(f"{name} {rate('shown', name):.4f}" for name in of if name != "online")
    return Row("clicks.online.end", rate("shown", "online"), "clicks/impression", "the best lists", rate("best", "online"),
               f"expected; {others}; {EXPLORE:.0%} of all places are given by chance, to every policy alike")


def interval(values: np.ndarray) -> str:
    """ "mean [low, high]": Student's interval of 95 % of the mean of float64[n], n of 2 to 10."""
    wide = STUDENT[len(values) - 2] * float(values.std(ddof=1)) / np.sqrt(len(values))
    mean = float(values.mean())
    digits = 1 if abs(mean) >= 10 else 4
    return f"{mean:.{digits}f} [{mean - wide:.{digits}f}, {mean + wide:.{digits}f}]"


