"""A simulated world with trouble in it, and the platform in it with or without the guard (headrace/watch/downgrade.py).

Time is the world's. Every exposure is scored in shadow by live and by every version when it is shown, and the guard is told when the
attribution window of its label has closed, as the watch role does it. What serving costs is told by the world's own probabilities: the
expected log-loss of the score served, given the truth, whatever the log reported.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bench.world_policies import EXPLORE, Online, explored
from headrace.config import Model
from headrace.features.client import Assembled
from headrace.features.layout import EMPTY_KEYS, SLOTS
from headrace.offline import Parameters, Serving
from headrace.simulator.scenario import Scenario
from headrace.simulator.tastes import DAY_MS
from headrace.simulator.world import World
from headrace.watch.downgrade import LIVE, Bounds, Guard, Step, crowded
from headrace.watch.page_hinkley import PageHinkley

HOUR_MS = DAY_MS // 24
BOUNDS = Bounds(every_s=4 * 3600, keep=6, interval_s=900, window_s=3600, samples_min=2000, memory_s=24 * 3600)


@dataclass(frozen=True)
class Trouble:
    """From hour `first` to hour `last` of the world: `share` of the labels say the opposite, at once or (`creeping`) growing up to it; or
    input `stuck` has no value, whatever is true."""

    name: str
    first: float = 72.0
    last: float = 84.0
    share: float = 0.0
    creeping: bool = False
    stuck: str = ""

    def turned(self, hours: np.ndarray) -> np.ndarray:
        within = (hours >= self.first) & (hours < self.last)
        grown = (hours - self.first) / (self.last - self.first) if self.creeping else np.ones(np.shape(hours))
        return np.where(within, self.share * grown, 0.0)


class Troubled(World):
    """A world whose log is told what a trouble makes of it."""

    def __init__(self, scenario: Scenario, seed: int, trouble: Trouble) -> None:
        super().__init__(scenario, seed)
        self.trouble = trouble

    def poisoned(self, ts_ms: np.ndarray) -> np.ndarray:
        return self.trouble.turned(self.hours(ts_ms))

    def hours(self, ts_ms: np.ndarray | int) -> np.ndarray:
        return (np.asarray(ts_ms) - self.start_ms) / HOUR_MS


@dataclass
class Course:
    """What became of a run, by request: hour float64[R], log-loss of what was served and expected clicks by the truth, and what served.
    `steps`: (hour, samples scored so far, step) of the guard."""

    hour: np.ndarray
    loss: np.ndarray
    clicks: np.ndarray
    served: np.ndarray
    samples: np.ndarray
    steps: list[tuple[float, int, Step]] = field(default_factory=list)


def detectors() -> dict[str, Callable[[float], bool]]:
    """River's where it is installed, else our own Page-Hinkley."""
    try:
        from headrace.watch.river_peer import loss_detectors
    except ModuleNotFoundError:
        return {"page_hinkley": PageHinkley().update}
    return loss_detectors()


class Watched:
    """The guard beside a platform: scores on their way to a label, versions as copies of the weights, steps as they are taken."""

    def __init__(self, policy: Online, bounds: Bounds, window_ms: int) -> None:
        self._policy, self._window_ms = policy, window_ms
        self.guard = Guard(bounds, detectors(), (SLOTS, EMPTY_KEYS))
        self.versions: dict[int, Serving] = {}
        self.created_s: dict[int, float] = {}
        self.serving, self.samples = LIVE, 0
        self.steps: list[tuple[float, int, Step]] = []
        self._waiting: deque[tuple[int, np.ndarray, dict[int, np.ndarray]]] = deque()
        self._next_ms = 0

    def shown(self, ts_ms: int, top: np.ndarray, label: np.ndarray) -> None:
        platform, ranked = self._policy.platform, self._policy.ranked
        weights: dict[int, Parameters | Serving] = {LIVE: platform.parameters, **self.versions}
        self.guard.see(ranked.assembled.keys[top], ranked.assembled.values[top])
        scores = {number: platform.shadow(ranked, top.tolist(), one) for number, one in weights.items()}
        self._waiting.append((ts_ms + self._window_ms, label, scores))

    def at(self, ts_ms: int, hour: float) -> None:
        """Time is `ts_ms`: labels whose window has closed, and intervals that are over."""
        step_ms = int(self.guard.bounds.interval_s * 1000)
        self._next_ms = self._next_ms or ts_ms + step_ms
        while self._next_ms <= ts_ms:
            self._settle(self._next_ms)
            self._tick(self._next_ms / 1000, hour - (ts_ms - self._next_ms) / HOUR_MS)
            self._next_ms += step_ms
        self._settle(ts_ms)

    def _settle(self, ts_ms: int) -> None:
        while self._waiting and self._waiting[0][0] <= ts_ms:
            _, label, scores = self._waiting.popleft()
            self.samples += len(label)
            self.guard.add(label.astype(np.float64), scores)

    def _tick(self, now_s: float, hour: float) -> None:
        for step in self.guard.tick(now_s, self.serving, False, self.created_s):
            self.steps.append((hour, self.samples, step))
            if step.kind == "serve":
                self.serving = step.version
                self._policy.platform.serve(self._policy.platform.parameters if step.version == LIVE else self.versions[step.version])
            elif step.kind == "publish":
                number = max(self.created_s, default=LIVE) + 1
                self.versions[number], self.created_s[number] = self._policy.platform.parameters.copy(), now_s
        for number in crowded(self.created_s, self.guard.bounds.keep, now_s, frozenset({self.serving})):
            del self.versions[number], self.created_s[number]


def course(scenario: Scenario, seed: int, trouble: Trouble, guarded: bool, model: Model, bounds: Bounds = BOUNDS) -> Course:
    """The product in the world of `seed`, which serves what the guard says, or live always."""
    world = Troubled(scenario, seed, trouble)
    requests = world.requests
    n = len(requests)
    done = Course(world.hours(requests.ts_ms), np.zeros(n), np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64))
    window_ms = int(scenario.actions.window_s * 1000)
    with tempfile.TemporaryDirectory(prefix="headrace-downgrade-") as folder:
        policy = Online(world, Path(folder), model)
        watched = Watched(policy, bounds, window_ms) if guarded else None
        policy.platform.spoil(_stuck(world, policy, trouble))
        try:
            for request, (ts_ms, user) in enumerate(zip(requests.ts_ms.tolist(), requests.user.tolist(), strict=True)):
                policy.now_ms = ts_ms
                items = requests.of(request)
                order = np.argsort(-policy.score(request, items), kind="stable")
                top = explored(seed, request, order, world.slots, EXPLORE)
                places = np.arange(len(top))
                attraction = world.click_probability(user, items[top], ts_ms)
                truth = attraction * world.model.examination(places)
                score = np.clip(policy.ranked.probabilities[top].astype(np.float64), 1e-7, 1 - 1e-7)
                done.loss[request] = -(truth * np.log(score) + (1 - truth) * np.log1p(-score)).mean()
                done.clicks[request] = world.expected(attraction)
                outcome = world.answer(np.full(len(top), request), items[top], places, np.full(len(top), ts_ms), np.full(len(top), user))
                label = outcome.reported & (outcome.delay_ms <= window_ms)
                if watched is not None:
                    done.served[request] = watched.serving
                    watched.shown(ts_ms, top, label)
                policy.shown(request, items, top, outcome, label)
                if watched is not None:
                    watched.at(ts_ms, float(done.hour[request]))
                    done.samples[request] = watched.samples
        finally:
            policy.close()
    if watched is not None:
        done.steps = watched.steps
    return done


def _stuck(world: Troubled, policy: Any, trouble: Trouble) -> Callable[[Assembled], Assembled]:
    def change(assembled: Assembled) -> Assembled:
        hours = float(world.hours(policy.now_ms))
        if not trouble.stuck or not trouble.first <= hours < trouble.last:
            return assembled
        slot = SLOTS.index(trouble.stuck)
        keys, values = assembled.keys.copy(), assembled.values.copy()
        keys[:, slot], values[:, slot] = EMPTY_KEYS[slot], 0.0
        return assembled._replace(keys=keys, values=values)

    return change


def sized(scenario: Scenario, users: int, items: int, hours: float) -> Scenario:
    """With so many users and items, and as many days as `hours` need."""
    return replace(scenario, size=replace(scenario.size, users=users, items=items, days=int(np.ceil(hours / 24))))
