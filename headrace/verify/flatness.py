"""Whether a stack stood still while a stream ran through it: the second quarter of the run beside its last.

The first quarter is left to filling caches and tables. Both sides are medians of their quarters, so that the sawtooth of logs, snapshots
and compactions is not taken for growth. A level (latency, memory) is flat when the last is at most a fifth above the second; a growth, the
difference of the two over the half run between them, when another hour of it would add at most a fifth of the last. Falling is no fault.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SHARE = 0.2
LATENCY_MS, MEMORY_MB, GROWTH_MB_H = 50.0, 32.0, 16.0  # what is too small to matter
LEVELS_S, GROWTH_S = 600.0, 1800.0  # a shorter run says what JVMs do while they warm up
BOUNDED = ("features", "ps", "flink checkpoints")  # parts of the disk whose size is users, items and settings, not time
Sample = dict[str, Any]
Row = dict[str, Any]
Where = tuple[str, ...]  # of a figure within a sample: its key, or a group's and its own


def judge(samples: list[Sample], seconds: float, full: bool) -> list[Row]:
    """A row a figure: what, unit, second, last, growth_h, limit (of last, or of growth_h), flat (None when it is not judged) and why it is
    not. `full`: whether the feature store had as many frozen samples before the second quarter as it ever keeps."""
    filling = "" if full else "its frozen samples were still filling: send faster or longer"
    rows = [_level(f"latency {q}", "ms", samples, seconds, (f"latency_{q}_ms",), LATENCY_MS) for q in ("p50", "p99")]
    rows += [_level("memory", "MB", samples, seconds, ("memory_total_mb",), MEMORY_MB),
             _growth("memory, growth", samples, seconds, ("memory_total_mb",))]
    return rows + [_growth(f"disk of {part}, growth", samples, seconds, ("disk_mb", part), filling if part == "features" else "")
                   for part in BOUNDED]


def by_nature(samples: list[Sample], seconds: float) -> list[Row]:
    """What may grow, or grows unseen within a sum, said and not judged: second, last and growth an hour of each."""
    found = samples[0] if samples else {"memory_mb": {}, "disk_mb": {}, "rows": {}}
    wanted: list[tuple[str, str, Where]] = [("lag", "samples", ("lag",))]
    wanted += [(f"memory of {name}", "MB", ("memory_mb", name)) for name in found["memory_mb"]]
    wanted += [(f"disk of {part}", "MB", ("disk_mb", part)) for part in found["disk_mb"]]
    wanted += [(f"rows of {table}", "rows", ("rows", table)) for table in found["rows"]]
    return [{"what": what, "unit": unit, **_sides(samples, seconds, of)} for what, unit, of in wanted]


def quarter(samples: list[Sample], seconds: float, number: int) -> list[Sample]:
    """The samples of a quarter of the run, 1 to 4."""
    return [one for one in samples if (number - 1) * seconds / 4 <= one["at_s"] <= number * seconds / 4]


def median(samples: list[Sample], of: Where) -> float | None:
    """Median of what was measured; None when nothing was."""
    values = _points(samples, of)
    return float(np.median(values)) if values else None


def _points(samples: list[Sample], of: Where) -> list[float]:
    """Values where it was measured."""
    found: list[float] = []
    for one in samples:
        value: Any = one
        for key in of:
            value = value.get(key)
        if value is not None:
            found.append(value)
    return found


def _sides(samples: list[Sample], seconds: float, of: Where) -> dict[str, float | None]:
    second, last = (median(quarter(samples, seconds, number), of) for number in (2, 4))
    grown = None if second is None or last is None else (last - second) / (seconds / 2 / 3600)
    return {"second": second, "last": last, "growth_h": grown}


def _level(what: str, unit: str, samples: list[Sample], seconds: float, of: Where, small: float) -> Row:
    sides = _sides(samples, seconds, of)
    second = sides["second"]
    limit = None if second is None else max((1 + SHARE) * second, second + small)
    return {"what": what, "unit": unit, **sides, "limit": limit, **_flat(sides["last"], limit, _short(seconds, LEVELS_S))}


def _growth(what: str, samples: list[Sample], seconds: float, of: Where, unjudged: str = "") -> Row:
    sides = _sides(samples, seconds, of)
    last = sides["last"]
    limit = None if last is None else max(SHARE * last, GROWTH_MB_H)
    return {"what": what, "unit": "MB", **sides, "limit": limit, **_flat(sides["growth_h"], limit, _short(seconds, GROWTH_S) or unjudged)}


def _short(seconds: float, judged_s: float) -> str:
    return f"the run is shorter than {judged_s / 60:.0f} minutes" if seconds < judged_s else ""


def _flat(value: float | None, limit: float | None, unjudged: str) -> Row:
    """A run that is to be judged, and was not measured, is not flat."""
    if value is None or limit is None:
        return {"flat": None if unjudged else False, "why": unjudged or "not measured in one of the quarters"}
    return {"flat": None if unjudged else value <= limit, "why": unjudged}
