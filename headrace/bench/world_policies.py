"""Policies on a simulated world: each is asked for scores of a request's candidates and told what came of the list.

All policies have the same requests, candidates, exploration and chances (simulator/dice.py), so that a difference between two of them is
theirs. The list is the candidates by score; each place is given to a candidate by chance in EXPLORE of all cases, the same places and
the same draws for all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headrace.config import Model
from headrace.engine.ranking import Ranked
from headrace.inprocess import Platform
from headrace.simulator.actions import Outcome
from headrace.simulator.dice import uniform
from headrace.simulator.tastes import DAY_MS
from headrace.simulator.world import World

EXPLORE = 0.05
PRIOR_IMPRESSIONS = 5.0


class Policy(Protocol):
    """`score` float[m] of items int64[m]; then `shown`: the places of that request's list among the items, and what came of each."""

    def score(self, request: int, items: np.ndarray) -> np.ndarray: ...

    def shown(self, request: int, items: np.ndarray, top: np.ndarray, outcome: Outcome, label: np.ndarray) -> None: ...

    def close(self) -> None: ...


class Popularity:
    """The item's smoothed click rate since its birth, told at once; items not shown yet have the rate of all. Ties are broken by chance."""

    def __init__(self, world: World, folder: Path, model: Model) -> None:
        self._seed = world.seed
        self._impressions, self._clicks = np.zeros(len(world.items)), np.zeros(len(world.items))

    def score(self, request: int, items: np.ndarray) -> np.ndarray:
        prior = (self._clicks.sum() + 1) / (self._impressions.sum() + 10)
        rate = (self._clicks[items] + PRIOR_IMPRESSIONS * prior) / (self._impressions[items] + PRIOR_IMPRESSIONS)
        return rate + 1e-9 * uniform(self._seed, "tie", np.full(len(items), request), items)

    def shown(self, request: int, items: np.ndarray, top: np.ndarray, outcome: Outcome, label: np.ndarray) -> None:
        self._impressions[items[top]] += 1
        self._clicks[items[top]] += label

    def close(self) -> None:
        """Nothing is held."""


class Online:
    """The product: features, model, training and the engine's ranking as they run in the stack (headrace/inprocess.py)."""

    copied = False

    def __init__(self, world: World, folder: Path, model: Model) -> None:
        self._world = world
        self._window_ms = int(world.scenario.actions.window_s * 1000)
        self.platform = Platform(folder, model, self._window_ms, copied=self.copied)
        self._item_names = [world.items.name(item) for item in range(len(world.items))]
        self._fields = [{f"item.{name}": value for name, value in world.items.fields(item).items()} for item in range(len(world.items))]
        self._born = iter(np.argsort(world.items.born_ms, kind="stable").tolist())
        self._next_item = next(self._born, None)
        self._ranked: Ranked | None = None
        self.now_ms = 0

    def score(self, request: int, items: np.ndarray) -> np.ndarray:
        world, ts_ms = self._world, int(self._world.requests.ts_ms[request])
        self._publish(ts_ms)
        self.platform.at(ts_ms)
        user = world.users.name(int(world.requests.user[request]))
        self._ranked = self.platform.rank(user, [self._item_names[item] for item in items.tolist()], world.context(ts_ms), ts_ms)
        return self._ranked.probabilities

    def shown(self, request: int, items: np.ndarray, top: np.ndarray, outcome: Outcome, label: np.ndarray) -> None:
        world, ts_ms, user = self._world, int(self._world.requests.ts_ms[request]), int(self._world.requests.user[request])
        known = {f"user.{name}": value for name, value in world.users.fields(user).items()}
        actions = []
        for n, item in enumerate(items[top].tolist()):
            for action, value, after_ms in outcome.of(n):
                if after_ms <= self._window_ms:
                    actions.append(_record(f"{request}:{n}:{action}", world.users.name(user), self._item_names[item], action, value,
                                           ts_ms + after_ms, known | self._fields[item]))
        self.platform.show(self.ranked, top.tolist(), f"r{request}", world.users.name(user), world.context(ts_ms), ts_ms, actions, label)

    @property
    def ranked(self) -> Ranked:
        """What was scored last."""
        assert self._ranked is not None, "a list is scored before it is looked at"
        return self._ranked

    def close(self) -> None:
        self.platform.close()

    def _publish(self, ts_ms: int) -> None:
        """Authors publish what has been born: the event that tells the features of an item before anybody has seen it."""
        items = self._world.items
        while self._next_item is not None and items.born_ms[self._next_item] <= ts_ms:
            item = self._next_item
            author = items.author_name(int(items.author[item]))
            self.platform.later(_record(f"born:{item}", author, self._item_names[item], "publish", 1.0, int(items.born_ms[item]),
                                        self._fields[item]))
            self._next_item = next(self._born, None)


class Daily(Online):
    """The same, learning the same way from its own lists; what it serves is a copy of the weights, taken at midnight."""

    copied = True

    def __init__(self, world: World, folder: Path, model: Model) -> None:
        super().__init__(world, folder, model)
        self._day = 0

    def score(self, request: int, items: np.ndarray) -> np.ndarray:
        day = int((self._world.requests.ts_ms[request] - self._world.start_ms) // DAY_MS)
        if day > self._day:
            self.platform.at(self._world.start_ms + day * DAY_MS)
            self.platform.refresh()
            self._day = day
        return super().score(request, items)


POLICIES: dict[str, Callable[[World, Path, Model], Any]] = {"popularity": Popularity, "daily": Daily, "online": Online}


def run(world: World, name: str, folder: Path, model: Model, explore: float = EXPLORE) -> np.ndarray:
    """float64[R]: expected clicks, by the truth, of the list that policy `name` showed at each request of the world."""
    requests, slots = world.requests, world.slots
    policy: Policy = POLICIES[name](world, folder, model)
    window_ms = world.scenario.actions.window_s * 1000
    expected = np.zeros(len(requests))
    try:
        for request, (ts_ms, user) in enumerate(zip(requests.ts_ms.tolist(), requests.user.tolist(), strict=True)):
            items = requests.of(request)
            top = explored(world.seed, request, np.argsort(-policy.score(request, items), kind="stable"), slots, explore)
            expected[request] = world.expected(world.click_probability(user, items[top], ts_ms))
            n = len(top)
            outcome = world.answer(np.full(n, request), items[top], np.arange(n), np.full(n, ts_ms), np.full(n, user))
            policy.shown(request, items, top, outcome, outcome.reported & (outcome.delay_ms <= window_ms))
    finally:
        policy.close()
    return expected


def explored(seed: int, request: int, order: np.ndarray, slots: int, share: float) -> np.ndarray:
    """int64[slots]: the first of `order`, each place exchanged with a later one by chance in `share` of all cases."""
    order = order.copy()
    place = np.arange(min(slots, len(order)))
    chosen = uniform(seed, "explore", np.full(len(place), request), place) < share
    drawn = uniform(seed, "explored", np.full(len(place), request), place)
    for at in np.nonzero(chosen)[0].tolist():
        other = at + int(drawn[at] * (len(order) - at))
        order[at], order[other] = order[other], order[at]
    return order[: len(place)]


def _record(event_id: str, user: str, item: str, action: str, value: float, ts_ms: int, context: dict[str, str]) -> dict[str, Any]:
    return {"event_id": event_id, "request_id": None, "scene": "", "user_id": user, "item_id": item, "action": action, "value": value,
            "position": None, "ts_ms": ts_ms, "context": context, "exposure": None}
