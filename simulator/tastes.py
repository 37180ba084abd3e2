"""Tastes that drift: log-odds a unit of each topic, by user, in steps of three hours.

A user's taste is the part of the cohort, which stands still, and a part of the user's own, an Ornstein-Uhlenbeck process: it is pulled
back to nothing with a half-life, and its spread over users stays the same. What all users share (trends) is such a process too.
"""

from __future__ import annotations

import numpy as np

from headrace.simulator.dice import generator
from headrace.simulator.scenario import Scenario

DAY_MS = 86_400_000
STEP_MS = 3 * 3_600_000
STEPS_A_DAY = DAY_MS // STEP_MS


class Drift:
    """users float32[steps, users, topics], trend float64[steps, topics]; `cohort` int64[users] into cohorts."""

    def __init__(self, scenario: Scenario, seed: int, cohort: np.ndarray, start_ms: int) -> None:
        settings, topics = scenario.tastes, scenario.size.topics
        self._start_ms, self.steps = start_ms, scenario.size.days * STEPS_A_DAY
        rng = generator(seed, "tastes")
        of_cohort = rng.normal(0.0, settings.cohort_scale, (settings.cohorts, topics))[cohort]
        own = rng.normal(0.0, settings.own_scale, of_cohort.shape)
        self.users = np.empty((self.steps, len(cohort), topics), np.float32)
        keep = _kept(settings.half_life_days)
        for step in range(self.steps):
            self.users[step] = of_cohort + own
            own = keep * own + np.sqrt(1 - keep**2) * settings.own_scale * rng.normal(size=own.shape)
        self.trend = _process(generator(seed, "trend"), self.steps, topics, settings.trend_scale, settings.trend_half_life_days)
        if scenario.shock is not None:
            self._shock(scenario, seed)

    def step(self, ts_ms: np.ndarray) -> np.ndarray:
        """int64[n]: the step of each time; before the start the first, behind the end the last."""
        return np.clip((np.asarray(ts_ms) - self._start_ms) // STEP_MS, 0, self.steps - 1)

    def _shock(self, scenario: Scenario, seed: int) -> None:
        """From the shock on the chosen users have the process of a stranger, and the trend is another one."""
        shock, settings = scenario.shock, scenario.tastes
        assert shock is not None, "called for a scenario with a shock"
        rng = generator(seed, "shock")
        at = round(shock.day * STEPS_A_DAY)
        chosen = np.nonzero(rng.random(self.users.shape[1]) < shock.users)[0]
        wide = np.sqrt(settings.cohort_scale**2 + settings.own_scale**2)
        self.users[at:, chosen] += (rng.normal(0.0, wide, (len(chosen), self.users.shape[2])) - self.users[at, chosen]).astype(np.float32)
        self.trend[at:] += rng.normal(0.0, settings.trend_scale * shock.trend, self.trend.shape[1]) - self.trend[at]


def _kept(half_life_days: float) -> float:
    """What is left of a deviation a step later."""
    return 1.0 if half_life_days == 0 else float(0.5 ** (1 / (half_life_days * STEPS_A_DAY)))


def _process(rng: np.random.Generator, steps: int, width: int, scale: float, half_life_days: float) -> np.ndarray:
    keep, state = _kept(half_life_days), rng.normal(0.0, scale, width)
    path = np.empty((steps, width))
    for step in range(steps):
        path[step] = state
        state = keep * state + np.sqrt(1 - keep**2) * scale * rng.normal(size=width)
    return path
