"""Durations as people write them: "30s", "15m", "12h", "7d"."""

from __future__ import annotations

import re

UNITS_MS = {"ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0, "w": 604_800_000.0}
_SHAPE = re.compile(r"^\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]+)\s*$")


def milliseconds(text: object) -> float:
    """Of a duration with its unit. Raises ValueError, which says what is missing."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueError(f"{text} has no unit: write \"{text}s\", \"{text}m\", \"{text}h\" or \"{text}d\"")
    found = _SHAPE.match(text) if isinstance(text, str) else None
    if found is None:
        bare = isinstance(text, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*", text)
        raise ValueError(f"{text!r} {'has no unit' if bare else 'is no duration'}: a number and one of {', '.join(UNITS_MS)}, as \"7d\"")
    if found["unit"] not in UNITS_MS:
        raise ValueError(f"{text!r}: {found['unit']!r} is no unit; they are {', '.join(UNITS_MS)}")
    made = float(found["amount"]) * UNITS_MS[found["unit"]]
    if not 1.0 <= made <= 100 * 366 * UNITS_MS["d"]:
        raise ValueError(f"{text!r} is not within a millisecond and a hundred years")
    return made


def written(ms: float) -> str:
    """A duration in its largest whole unit; "" for an endless one."""
    if ms == float("inf"):
        return ""
    unit = next((unit for unit in ("w", "d", "h", "m", "s") if ms % UNITS_MS[unit] == 0 and (unit != "w" or ms > UNITS_MS["w"])), "ms")
    return f"{ms / UNITS_MS[unit]:g}{unit}"
