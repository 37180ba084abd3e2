"""Features that are frozen to their defaults: decisions, kept with the store, and told with every answer that a model's input is made of.

What is read, sampled and recomputed stays as it is; who makes a model's input puts the default in its place (models/inputs.py). In code
that is a mask, since `frozen` are features as they were at an exposure.
"""

from __future__ import annotations

import json
from typing import Any

from headrace.features.feature_set import FeatureSet
from headrace.features.layout import NUMBERS, SLOTS
from headrace.features.store import FeatureStore

FREEZE, UNFREEZE, RESET, ALARM, CALM = "freeze", "unfreeze", "reset", "alarm", "calm"
DECISIONS = (FREEZE, UNFREEZE, RESET, ALARM, CALM)
EVENTS_MAX = 500
WHY_CHARACTERS_MAX = 1000
NEVER = ("bias", "user_id", "item_id")  # without them a sample is of nobody
ALL = ""  # of RESET: every feature
_KEY = b"masks"


class MaskError(Exception):
    """A decision that cannot be taken; says why, and what there is."""


def maskable(feature_set: FeatureSet) -> tuple[str, ...]:
    """Names that can be frozen: definitions, built-in numbers and slots."""
    own = [one.name_in(feature_set.definitions) for one in feature_set.definitions]
    return (*own, *NUMBERS, *(slot for slot in SLOTS if slot not in NEVER))


class Masks:
    """Those of `store`. `frozen`: by feature who froze it, when (at_ms), why; `resets`: by feature (ALL: every one) the turn in which its
    reference was to begin anew; `turn` grows with every decision; `events`, the newest EVENTS_MAX, oldest first."""

    def __init__(self, store: FeatureStore, feature_set: FeatureSet) -> None:
        self._store, self._known = store, maskable(feature_set)
        held = json.loads(store.note(_KEY) or b"{}")
        self.turn: int = held.get("turn", 0)
        self.frozen: dict[str, dict[str, Any]] = held.get("frozen", {})
        self.resets: dict[str, int] = held.get("resets", {})
        self.events: list[dict[str, Any]] = held.get("events", [])

    @property
    def names(self) -> list[str]:
        return sorted(self.frozen)

    def decide(self, decision: str, feature: str, by: str, why: str, at_ms: int) -> bool:
        """Take and keep a decision; False when it changes nothing (frozen already, not frozen, told already). Raises
        MaskError."""
        if decision not in DECISIONS:
            raise MaskError(f"{decision!r} is no decision; there are {', '.join(DECISIONS)}")
        every = decision == RESET and feature == ALL
        if not every and feature not in self._known and not (decision == UNFREEZE and feature in self.frozen):
            raise MaskError(f"{feature!r} is no feature that can be frozen or watched here; there are {', '.join(self._known)}")
        if (decision == FREEZE) == (feature in self.frozen) and decision in (FREEZE, UNFREEZE):
            return False
        newest = next((one for one in reversed(self.events) if one["feature"] == feature), None)
        if decision in (ALARM, CALM) and newest is not None and (newest["event"], newest["why"]) == (decision, why[:WHY_CHARACTERS_MAX]):
            return False  # told again by who had no answer
        frozen = {name: one for name, one in self.frozen.items() if decision != UNFREEZE or name != feature}
        if decision == FREEZE:
            frozen[feature] = {"by": by, "why": why[:WHY_CHARACTERS_MAX], "at_ms": at_ms}
        resets = {**({} if every else self.resets), **({feature: self.turn + 1} if decision == RESET else {})}
        events = [*self.events, {"event": decision, "feature": feature, "by": by, "why": why[:WHY_CHARACTERS_MAX], "at_ms": at_ms}]
        self._keep(self.turn + 1, frozen, resets, events[-EVENTS_MAX:])
        return True

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {"turn": self.turn, "frozen": self.frozen, "resets": self.resets, "events": self.events}

    def _keep(self, turn: int, frozen: dict[str, Any], resets: dict[str, int], events: list[dict[str, Any]]) -> None:
        self._store.put_note(_KEY, json.dumps({"turn": turn, "frozen": frozen, "resets": resets, "events": events}).encode())
        self.turn, self.frozen, self.resets, self.events = turn, frozen, resets, events
