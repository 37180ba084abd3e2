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


class Noise(NamedTuple):
    """Rules against noise in a join, off at 0: an exposure at most `repeated_ms` after another of its user and item is left out, the clicks
    on it counting for the first; a click counts as none where the longest dwell on its exposure is below `accidental_s` seconds."""

    repeated_ms: int = 0
    accidental_s: float = 0.0


QUIET = Noise()
"""No rule."""
CLICK, DWELL = "click", "dwell"


def windows(targets: tuple[Target, ...], noise: Noise = QUIET) -> dict[str, int]:
    """action -> ms within which it is attributed to an exposure: the widest window of the targets of that action; of dwell the widest of
    all where it tells accidental clicks. An action that is not named has the window of the first target."""
    found: dict[str, int] = {}
    for one in targets:
        found[one.action] = max(found.get(one.action, 0), one.window_ms)
    return found | ({DWELL: max(found.values())} if noise.accidental_s else {})
