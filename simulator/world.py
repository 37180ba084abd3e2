"""The world: users, items, requests and the truth about clicks, all from a scenario and a seed."""

from __future__ import annotations

import numpy as np

from headrace.simulator import items as all_items
from headrace.simulator import sessions
from headrace.simulator import users as all_users
from headrace.simulator.actions import Outcome, outcomes
from headrace.simulator.clicks import DAYPARTS, ClickModel, daypart
from headrace.simulator.items import HOUR_MS
from headrace.simulator.scenario import Scenario
from headrace.simulator.sessions import NONE
from headrace.simulator.tastes import DAY_MS, Drift

START_MS = 1_767_571_200_000  # 2026-01-05, a Monday, 00:00 UTC
CHUNK = 4096


class World:
    """One world. Users, items and requests are numbers from 0; `users.name(u)` and `items.name(i)` are the ids on the wire."""

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        self.scenario, self.seed, self.start_ms = scenario, seed, START_MS
        self.users = all_users.draw(scenario, seed, START_MS)
        self.items = all_items.draw(scenario, seed, START_MS)
        self.drift = Drift(scenario, seed, self.users.cohort, START_MS)
        self.model = ClickModel(scenario, seed, self.users, self.items, self.drift)
        self.requests = sessions.draw(scenario, seed, self.users, self.items, START_MS)
        self.slots = scenario.size.slots

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.scenario.size.days * DAY_MS

    def click_probability(self, user: int, items: np.ndarray, ts_ms: int) -> np.ndarray:
        """float64[m]: the truth, given that an item is examined."""
        return self.model.attraction(np.asarray(user), np.asarray(items, np.int64), np.asarray(ts_ms))

    def best(self, user: int, n: int, ts_ms: int, among: np.ndarray | None = None) -> np.ndarray:
        """int64[n]: the best list of the live items, or of those `among`; the smaller number first where two are equal."""
        pool = self.items.live(ts_ms) if among is None else np.sort(np.asarray(among, np.int64))
        return pool[np.argsort(-self.click_probability(user, pool, ts_ms), kind="stable")[:n]]

    def expected(self, probability: np.ndarray) -> np.ndarray:
        """float64[...]: expected clicks of lists whose attractions lie along the last axis, from place 0."""
        return (probability * self.model.examination(np.arange(probability.shape[-1]))).sum(axis=-1)

    def candidate_probabilities(self) -> np.ndarray:
        """float64[R, recall] of every request's candidates, 0 where there is none."""
        requests, out = self.requests, np.zeros(self.requests.candidates.shape)
        for start in range(0, len(requests), CHUNK):
            at = slice(start, start + CHUNK)
            shown = requests.candidates[at].astype(np.int64)
            p = self.model.attraction(requests.user[at, None], np.maximum(shown, 0), requests.ts_ms[at, None])
            out[at] = np.where(shown == NONE, 0.0, p)
        return out

    def optimum(self, probabilities: np.ndarray) -> np.ndarray:
        """float64[R]: expected clicks of the best list of each request, of what candidate_probabilities gives: no policy has more."""
        return self.expected(-np.sort(-probabilities, axis=1)[:, : self.slots])

    def answer(self, request: np.ndarray, item: np.ndarray, position: np.ndarray, ts_ms: np.ndarray, user: np.ndarray) -> Outcome:
        """What becomes of n exposures, all int64[n]; `request` is any number that names the request. A bot clicks whatever it sees."""
        bot = user >= self.users.people
        attraction = np.where(bot, 1.0, self.model.attraction(user, item, ts_ms))
        examination = np.where(bot, 1.0, self.model.examination(position))
        return outcomes(self.scenario.actions, self.seed, request, item, attraction, examination, self.poisoned(ts_ms) * ~bot)

    def poisoned(self, ts_ms: np.ndarray) -> np.ndarray:
        """float64[n]: the share of labels that are turned at each time."""
        poison = self.scenario.poison
        if poison is None:
            return np.zeros(np.shape(ts_ms))
        return poison.labels * self._within(ts_ms, poison.day, poison.days)

    def lost(self, ts_ms: np.ndarray) -> np.ndarray:
        """bool[n]: whether what happens then never reaches the log."""
        outage = self.scenario.outage
        return np.zeros(np.shape(ts_ms), bool) if outage is None else self._within(ts_ms, outage.day, outage.hours / 24)

    def context(self, ts_ms: int) -> dict[str, str]:
        """What a request says of its moment."""
        return {"daypart": DAYPARTS[int(daypart(np.asarray(ts_ms)))]}

    def day(self, ts_ms: np.ndarray) -> np.ndarray:
        """float64[n]: days since the start."""
        return (np.asarray(ts_ms) - self.start_ms) / DAY_MS

    def age_h(self, item: np.ndarray, ts_ms: np.ndarray) -> np.ndarray:
        """float64[n]: hours since birth."""
        return (np.asarray(ts_ms) - self.items.born_ms[item]) / HOUR_MS

    def _within(self, ts_ms: np.ndarray, day: float, days: float) -> np.ndarray:
        at = self.day(ts_ms)
        return (at >= day) & (at < day + days)
