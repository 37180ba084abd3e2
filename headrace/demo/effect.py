"""The effect: recommendations; a user is shown items, clicks those of one genre and passes over the others; recommendations
again. What moved is the model's, not the read filter's.

The scores compared are of items of that genre which were not clicked, and of other genres, by POST /score, which filters nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Protocol

import msgspec
import numpy as np

from headrace.api import Client

CLICKED, PASSED = 20, 12  # of the genre, of other genres


class Front(Protocol):
    """The engine's front, with answers as JSON."""

    def recommend(self, user: str, n: int = 10, *, explain: bool = False, preview: bool = False) -> dict[str, Any]: ...

    def score(self, user: str, items: list[str]) -> dict[str, Any]: ...

    def emit(self, events: list[dict[str, Any]]) -> dict[str, Any]: ...


class Plain:
    """A Front by the client, whose answers go into the demo's report as JSON."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def recommend(self, user: str, n: int = 10, *, explain: bool = False, preview: bool = False) -> dict[str, Any]:
        return _plain(self._client.recommend(user, n, explain=explain, preview=preview))

    def score(self, user: str, items: list[str]) -> dict[str, Any]:
        return _plain(self._client.score(user, items))

    def emit(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        return _plain(self._client.emit(events))


def _plain(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(answer)
    return found


@dataclass(frozen=True)
class Effect:
    """Before and after; `seconds` from the events accepted to the first answer in which training had applied them all. `passed`: items of
    other genres that were shown too and not clicked."""

    user: str
    genre: str
    clicked: list[str]
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    scores_before: dict[str, float]
    scores_after: dict[str, float]
    seconds: float
    passed: list[str] = field(default_factory=list)
    why: list[tuple[str, float, float]] = field(default_factory=list)  # slot, change in log-odds, what it adds now
    others_before: dict[str, float] = field(default_factory=dict)  # items of other genres, as a measure
    others_after: dict[str, float] = field(default_factory=dict)
    popular: bool = False  # the list before was what is popular, in its order: nothing was known of the user

    @property
    def rise(self) -> float:
        """Mean change of the probability over the unclicked items of the genre."""
        return float(np.mean([self.scores_after[item] - self.scores_before[item] for item in self.scores_before]))

    @property
    def rose(self) -> bool:
        return self.rise > 0


def clicks(user: str, items: Sequence[str], name: str, passed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """An impression and a click on each item, and in turn with them an impression alone of each of `passed`; stamped by the engine's
    clock."""
    shown = [(item, action) for one in zip_longest(items, passed) for item, actions in zip(one, (("impression", "click"), ("impression",)),
             strict=True) if item is not None for action in actions]
    return [{"event_id": f"{name}-{user}-{item}-{action}", "user_id": user, "item_id": item, "action": action, "scene": "demo"}
            for item, action in shown]


def measure(front: Front, user: str, genre: str, of_genre: list[str], seen: set[str], applied: Callable[[], int], *, n: int = 10,
            name: str = "demo", others: Sequence[str] = (), deadline_s: float = 30.0) -> Effect:
    """Recommend, show the first unseen items of `genre`, which are clicked, and some of `others`, which are not, wait until training has
    applied them and the user has a vector of their own, recommend again.

    `applied` is how many samples every shard has applied; more of `others` are scored beside. Raises TimeoutError naming what did not come.
    """
    unseen = [item for item in of_genre if item not in seen]
    clicked, rest = unseen[:CLICKED], unseen[CLICKED:CLICKED + 100]
    strange = [item for item in others if item not in seen]
    passed, beside = strange[:PASSED], strange[PASSED:PASSED + len(rest)]
    found = front.recommend(user, n, preview=True, explain=True)
    before = found["items"]
    others_before = scores(front, user, beside)[0] if beside else {}
    scores_before, sequence = scores(front, user, rest)
    target = applied() + len(clicked) + len(passed)
    front.emit(clicks(user, clicked, name, passed))
    started = time.monotonic()
    while applied() < target:
        if time.monotonic() - started > deadline_s:
            raise TimeoutError(f"training has not applied the clicks of user {user} within {deadline_s:.0f} s")
        time.sleep(0.02)
    scores_after = _folded(front, user, rest, sequence, deadline_s)
    seconds = time.monotonic() - started
    others_after = scores(front, user, beside)[0] if beside else {}
    after = _recommended(front, user, n, deadline_s)
    return Effect(user, genre, clicked, before, after, scores_before, scores_after, seconds, passed, moved_by_slot(before, after),
                  others_before, others_after, bool(found.get("fallback")))


def _recommended(front: Front, user: str, n: int, deadline_s: float) -> list[dict[str, Any]]:
    """The list once the index has the user's vector: until then a new user gets popular items."""
    until = time.monotonic() + deadline_s
    while True:
        found = front.recommend(user, n, preview=True, explain=True)
        if not found.get("fallback") or time.monotonic() > until:
            items: list[dict[str, Any]] = found["items"]
            return items
        time.sleep(0.1)


def moved_by_slot(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """(slot, change in log-odds, what it adds now) of the first item that is in both explained lists, the largest change first."""
    was = {row["item_id"]: row for row in before}
    row = next((row for row in after if row["item_id"] in was), None)
    if row is None:
        return []
    old, new = (_by_slot(one["explain"]["slots"]) for one in (was[row["item_id"]], row))
    changes = [(slot, new.get(slot, 0.0) - old.get(slot, 0.0), new.get(slot, 0.0)) for slot in old | new]
    return sorted(changes, key=lambda change: -abs(change[1]))


def _by_slot(contributions: list[dict[str, Any]]) -> dict[str, float]:
    return {one["name"] or one["slot"]: one["linear"] + one["pairs"] for one in contributions}


def scores(front: Front, user: str, items: list[str]) -> tuple[dict[str, float], int]:
    """Probability of each item now, and the sequence of the serving weights behind them."""
    answer = front.score(user, items)
    return {row["item_id"]: row["score"] for row in answer["items"]}, answer["weights"]["sequence"]


def _folded(front: Front, user: str, items: list[str], before: int, deadline_s: float) -> dict[str, float]:
    """The scores once the replica has folded weights newer than sequence `before`; scores alone move with time too, as features age."""
    until = time.monotonic() + deadline_s
    while True:
        now, sequence = scores(front, user, items)
        if sequence > before or time.monotonic() > until:
            return now
        time.sleep(0.02)
