"""Small worlds for the tests."""

from __future__ import annotations

from headrace.simulator.scenario import load
from headrace.simulator.world import World


def world(name: str = "calm", users: int = 60, items: int = 200, days: int = 8, seed: int = 3) -> World:
    return World(load(name).sized(users, items, days), seed)
