"""When users come, and which items each of their requests may choose from: the same for every policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.simulator.dice import generator
from headrace.simulator.items import Items
from headrace.simulator.scenario import Scenario
from headrace.simulator.tastes import DAY_MS
from headrace.simulator.users import Users

NONE = -1


@dataclass(frozen=True)
class Requests:
    """R requests in time order: ts_ms int64[R], user int64[R], bot bool[R], candidates int32[R, recall], NONE where there are fewer."""

    ts_ms: np.ndarray
    user: np.ndarray
    bot: np.ndarray
    candidates: np.ndarray

    def __len__(self) -> int:
        return len(self.ts_ms)

    def of(self, request: int) -> np.ndarray:
        """int64: the candidates of a request."""
        row = self.candidates[request]
        return row[row != NONE].astype(np.int64)


def draw(scenario: Scenario, seed: int, users: Users, items: Items, start_ms: int) -> Requests:
    """Sessions are Poisson by user and day, more in the evening; a session is one request or several, a gap apart."""
    rng, settings, days = generator(seed, "sessions"), scenario.sessions, scenario.size.days
    counts = rng.poisson(np.broadcast_to(users.activity[: users.people, None], (users.people, days)))
    user = np.repeat(np.arange(users.people), counts.sum(axis=1))
    day = np.repeat(np.tile(np.arange(days), users.people), counts.reshape(-1))
    start = start_ms + day * DAY_MS + (_hours(rng, len(user)) / 24 * DAY_MS).astype(np.int64)
    length = rng.geometric(1 / settings.requests, len(user))
    first = np.repeat(np.cumsum(length) - length, length)
    nth = np.arange(int(length.sum())) - first
    gap_ms = np.repeat(settings.gap_s * 1000 * np.exp(0.5 * rng.normal(size=len(user))), length)
    ts_ms, user = np.repeat(start, length) + (nth * gap_ms).astype(np.int64), np.repeat(user, length)
    kept = (ts_ms >= users.arrives_ms[user]) & (ts_ms < start_ms + days * DAY_MS)
    ts_ms, user = ts_ms[kept], user[kept]
    bot_ts, bot = _bots(scenario, seed, users, start_ms)
    ts_ms, user = np.concatenate([ts_ms, bot_ts]), np.concatenate([user, bot])
    order = np.lexsort((user, ts_ms))
    ts_ms, user = ts_ms[order], user[order]
    is_bot = user >= users.people
    return Requests(ts_ms, user, is_bot, _recall(scenario, seed, users, items, ts_ms, user))


def _hours(rng: np.random.Generator, n: int) -> np.ndarray:
    """float64[n] hour of the day: a peak at noon, a higher one at nine in the evening, few at night."""
    kind = rng.random(n)
    peak = np.where(kind < 0.3, rng.normal(12.5, 2.0, n), rng.normal(20.5, 2.5, n))
    return np.where(kind < 0.8, peak, rng.random(n) * 24) % 24


def _bots(scenario: Scenario, seed: int, users: Users, start_ms: int) -> tuple[np.ndarray, np.ndarray]:
    spam = scenario.spam
    if spam is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rng = generator(seed, "bots")
    counts = rng.poisson(spam.requests * spam.days, users.bots)
    ts_ms = start_ms + ((spam.day + spam.days * rng.random(int(counts.sum()))) * DAY_MS).astype(np.int64)
    kept = ts_ms < start_ms + scenario.size.days * DAY_MS
    return ts_ms[kept], np.repeat(np.arange(users.people, len(users)), counts)[kept]


def _recall(scenario: Scenario, seed: int, users: Users, items: Items, ts_ms: np.ndarray, user: np.ndarray) -> np.ndarray:
    """int32[R, recall]: live items by chance, those first that the user was offered least often; bots are given the spam."""
    rng, width = generator(seed, "recall"), scenario.size.recall
    offered = np.zeros((len(users), len(items)), np.uint8)
    out = np.full((len(ts_ms), width), NONE, np.int32)
    spam = np.arange(len(items) - items.spam, len(items))
    for request, (at, who) in enumerate(zip(ts_ms.tolist(), user.tolist(), strict=True)):
        live = spam if who >= users.people else items.live(at)
        drawn = offered[who, live] + rng.random(len(live))
        if len(live) > width:
            live = live[np.argpartition(drawn, width)[:width]]
        out[request, : len(live)] = live
        counts = offered[who, live]
        offered[who, live] = counts + (counts < 255)
    return out
