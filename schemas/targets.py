"""What is learnt of an exposure: a target is an action within its window, where wanted of a value that is large enough."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class Target(NamedTuple):
    """`name` in samples and of the effect that learning has; `action` within `window_ms` of its exposure, of value `at_least` where that
    is given."""

    name: str
    action: str
    window_ms: int
    at_least: float | None = None


def named(name: str, what: str = "target") -> str:
    """`name`, which may stand in a statement of SQL. Raises ValueError for another."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r} is no action name: letters, digits, _ and - only")
    return name


def windows(targets: tuple[Target, ...]) -> dict[str, int]:
    """action -> ms within which it is attributed to an exposure: the widest window of the targets of that action. An action of no target
    has the window of the first target."""
    found: dict[str, int] = {}
    for one in targets:
        found[one.action] = max(found.get(one.action, 0), one.window_ms)
    return found
