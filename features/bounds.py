"""What a feature is expected to be: the table `bounds` of a definition, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.features.durations import milliseconds

BOUNDS = ("min", "max", "null_rate", "default_rate", "psi", "stale")
_RATES = ("null_rate", "default_rate")


@dataclass(frozen=True)
class Bounds:
    """`least` and `most` of its values; `null_rate`: share of exposures that read no finite number, or no id; `default_rate`: share that
    read its default; `psi` of its distribution against the reference; `stale_ms` since the newest event that counts. None: of the
    configuration, section [quality], where it has one."""

    least: float = -math.inf
    most: float = math.inf
    null_rate: float | None = None
    default_rate: float | None = None
    psi: float | None = None
    stale_ms: float | None = None


def bounds_of(given: Any, ids: bool) -> Bounds:
    """Of a definition's table; `ids`: its reducer gives ids. Raises ValueError with what to write instead."""
    if not isinstance(given, Mapping):
        raise ValueError(f"bounds is {given!r}, not a table as {{ min = 0, max = 1 }}")
    for key in given:
        if key not in BOUNDS:
            raise ValueError(f"bounds: {key!r} is no bound; there are {', '.join(BOUNDS)}")
    if ids and (wrong := next((key for key in ("min", "max", "default_rate") if key in given), None)):
        raise ValueError(f"bounds: {wrong} is of numbers, and this reducer gives ids; of them there are null_rate, psi and stale")
    found = {key: _number(key, given[key]) for key in given if key != "stale"}
    for key in _RATES:
        if key in found and not 0 <= found[key] <= 1:
            raise ValueError(f"bounds: {key} is {found[key]:g}, a share from 0 to 1 was expected")
    if found.get("psi", 1.0) <= 0:
        raise ValueError(f"bounds: psi is {found['psi']:g}, a number above 0 was expected, as 0.25")
    least, most = found.get("min", -math.inf), found.get("max", math.inf)
    if least > most:
        raise ValueError(f"bounds: min {least:g} lies above max {most:g}")
    try:
        stale_ms = milliseconds(given["stale"]) if "stale" in given else None
    except ValueError as error:
        raise ValueError(f"bounds: stale = {error}") from None
    return Bounds(least, most, found.get("null_rate"), found.get("default_rate"), found.get("psi"), stale_ms)


def _number(key: str, found: Any) -> float:
    if not isinstance(found, int | float) or isinstance(found, bool) or not math.isfinite(found):
        raise ValueError(f"bounds: {key} is {found!r}, not a finite number")
    return float(found)
