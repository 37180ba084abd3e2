"""The users: who they are to a platform (age band, language), how active, whom they follow and when they first come. Bots stand last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.simulator.dice import generator
from headrace.simulator.scenario import Scenario
from headrace.simulator.tastes import DAY_MS
from headrace.simulator.texts import LANGUAGES

FAVOURITES = 5
BANDS = ("0-17", "18-24", "25-34", "35-44", "45-54", "55+")


@dataclass(frozen=True)
class Users:
    """n users, the last `bots` of them bots.

    cohort int64[n], language int64[n] (into LANGUAGES), activity float64[n] sessions a day, arrives_ms int64[n],
    favourites int64[n, 5] authors that they like, follows bool[n, 5] whether they followed that author before the world began.
    """

    cohort: np.ndarray
    language: np.ndarray
    activity: np.ndarray
    arrives_ms: np.ndarray
    favourites: np.ndarray
    follows: np.ndarray
    bots: int

    def __len__(self) -> int:
        return len(self.cohort)

    @property
    def people(self) -> int:
        """Users that are no bots."""
        return len(self) - self.bots

    def name(self, user: int) -> str:
        return f"u{user:06d}"

    def fields(self, user: int) -> dict[str, str]:
        """What a platform knows of a user: the age band tells the cohort, whose tastes it does not tell."""
        return {"age": BANDS[self.cohort[user] % len(BANDS)], "speaks": LANGUAGES[self.language[user]]}


def draw(scenario: Scenario, seed: int, start_ms: int) -> Users:
    """The users of a scenario, from the seed alone."""
    rng = generator(seed, "users")
    people, bots = scenario.size.users, scenario.spam.bots if scenario.spam else 0
    n = people + bots
    sigma = scenario.sessions.activity_sigma
    activity = scenario.sessions.a_day * np.exp(sigma * rng.normal(size=n) - sigma**2 / 2)
    arrives = np.full(n, start_ms, np.int64)
    if scenario.cold_start:
        wave = scenario.cold_start
        late = rng.random(n) < wave.users
        arrives[late] += ((wave.day * 24 + wave.hours * rng.random(int(late.sum()))) / 24 * DAY_MS).astype(np.int64)
    language = (rng.random(n) >= scenario.items.chinese).astype(np.int64)
    return Users(rng.integers(0, scenario.tastes.cohorts, n), language, activity, arrives,
                 rng.integers(0, scenario.size.authors, (n, FAVOURITES)), rng.random((n, FAVOURITES)) < 0.6, bots)
