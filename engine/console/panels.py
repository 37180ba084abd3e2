"""The panels that show what the sampler has found; each gets along without the others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

from headrace.engine.clock import LOG
from headrace.engine.console.desk import Desk
from headrace.engine.console.figures import NOT_SUBMITTED, Flow, Freshness, Learning, Point, Processes, Window
from headrace.engine.console.sampler import Reading

OLD_MS = 30_000  # what was seen earlier is no longer shown
RECENT_MIN, SCORED_MIN = 200, 30  # samples: figures of fewer jump about
RATE_MS = 10_000  # rates are of so long
GAP_MS = 10_000  # nobody looked in between: a curve is broken there
DAY_MS = 86_400_000
FINE = ("ready", "answers")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def learning(desk: Desk, _: Mapping[str, str]) -> dict[str, Any]:
    return _found(desk, "learning")


def freshness(desk: Desk, _: Mapping[str, str]) -> dict[str, Any]:
    points = desk.sampler.points("freshness")
    found = _found(desk, "freshness")
    hops = found["value"].hops if found["value"] else []
    return {**found, "curves": {hop.name: [point.get(f"{hop.name}_p99") for _, point in points][-60:] for hop in hops}}


def flow(desk: Desk, _: Mapping[str, str]) -> dict[str, Any]:
    points = desk.sampler.points("flow")
    found = _found(desk, "flow")
    jobs = found["value"].jobs if found["value"] else []
    return {**found, "rates": {job.name: (rate(points, f"{job.name}_read"), rate(points, f"{job.name}_written")) for job in jobs}}


def processes(desk: Desk, _: Mapping[str, str]) -> dict[str, Any]:
    found = _found(desk, "processes")
    rows = found["value"].rows if found["value"] else []
    return {**found, "fine": FINE, "memory_mb": sum(row.memory_mb or 0 for row in rows), "ready": sum(row.state in FINE for row in rows)}


def users(desk: Desk, _: Mapping[str, str]) -> dict[str, Any]:
    value: Flow | None = _found(desk, "flow")["value"]
    return {"users": value.users if value else []}


def summary(desk: Desk, _: Mapping[str, str]) -> dict[str, Any]:
    """The figures above all, and the sentence that says how it goes."""
    learnt: Learning | None = _found(desk, "learning")["value"]
    fresh: Freshness | None = _found(desk, "freshness")["value"]
    held: Processes | None = _found(desk, "processes")["value"]
    per_s = rate(desk.sampler.points("learning"), "learnt")
    window = _newest(learnt) if learnt else None
    last = fresh.hops[-1] if fresh and fresh.hops else None
    rows = held.rows if held else []
    down = [row for row in rows if row.state not in FINE]
    problems = [reading.problem for name in ("learning", "freshness", "flow", "processes")
                if (reading := desk.sampler.newest(name)).problem]
    flowing: Flow | None = _found(desk, "flow")["value"]
    absent = [job.name for job in flowing.jobs if job.state == NOT_SUBMITTED] if flowing else []
    state, said = _sentence(learnt, per_s, [row.name for row in down], problems, absent)
    if waits := _of_a_log(desk.engine.clock.state()):
        said = f"{said} {waits}"
    if held is not None and held.serving:
        said = f"{said} Not simply live: {held.serving}."
    return {"learning": learnt, "window": window, "stretch": _stretch(learnt, window),
            "per_s": per_s, "hop": last, "rows": rows, "down": down, "state": state, "said": said}


def _of_a_log(clock: Mapping[str, Any]) -> str:
    """What a log's clock that is days behind means for live events, else ""."""
    if clock["mode"] != LOG or now_ms() - clock["ts_ms"] < DAY_MS:
        return ""
    at = datetime.fromtimestamp(clock["ts_ms"] / 1000, timezone.utc)
    return (f"The stack's clock is a replayed log's, at {at:%Y-%m-%d %H:%M} UTC: events dated today wait until `headrace clock now` takes"
            " it to today, for good.")


def _newest(learnt: Learning) -> Window | None:
    """The newest stretch that says something: the last minute, when it is long enough, or a window."""
    recent = [learnt.recent] if learnt.recent and learnt.recent.samples >= RECENT_MIN else []
    return next((one for one in reversed([*learnt.windows, *recent]) if one.auc is not None), None)


def _stretch(learnt: Learning | None, window: Window | None) -> str:
    """Which stretch `_newest` gave, for people."""
    if learnt is None or window is None:
        return "newest"
    return "last minute" if window is learnt.recent else "newest window"


def _sentence(learnt: Learning | None, per_s: float | None, down: list[str], problems: list[str],
              absent: list[str]) -> tuple[str, str]:
    """(good, idle, bad or looking; what it means)."""
    if down:
        return "bad", f"Not well: {', '.join(down)} {'is' if len(down) == 1 else 'are'} not ready."
    if problems:
        return "bad", f"Not everything can be seen: {problems[0]}"
    if learnt is None:
        return "looking", "Looking at the stack."
    if not learnt.learnt and absent:
        return "bad", f"The model {learnt.model} learns nothing: {', '.join(absent)} not submitted; `headrace jobs submit` does it."
    if not learnt.learnt:
        return "idle", f"The model {learnt.model} has learnt nothing yet: send events, or start `headrace demo`."
    if per_s is None or per_s < 0.05:
        return "idle", f"The stream is quiet: {learnt.learnt:,} samples have been learnt, none just now."
    return "good", f"The model {learnt.model} is learning, {per_s:,.0f} samples a second." if per_s >= 1 else (
        f"The model {learnt.model} is learning, a sample every {1 / per_s:,.0f} s.")


def series(desk: Desk) -> dict[str, Any]:
    """What the curves are drawn from; times are seconds since 1970, null is a gap."""
    value: Learning | None = _found(desk, "learning")["value"]
    points = desk.sampler.points("learning")
    figures = ("auc", "popularity_auc", "logloss", "popularity_logloss")
    live: dict[str, list[Any]] = {"t": [], **{name: [] for name in figures}}
    for at_ms, point in _broken(points):
        live["t"].append(at_ms / 1000)
        for name in figures:
            live[name].append(point.get(name))
    windows, yesterday = ([{"t": one.t_ms / 1000, **{name: getattr(one, name) for name in figures}} for one in found
                           if one.samples >= SCORED_MIN] for found in ((value.windows, value.yesterday) if value else ((), ())))
    away = [name for name in ("learning", "flow") if desk.sampler.newest(name).problem]
    return {"away": away, "live": live, "windows": windows, "yesterday": yesterday, "flow": _rates(desk.sampler.points("flow"))}


def _rates(points: list[tuple[int, Point]]) -> dict[str, list[Any]]:
    """{"t", and of each job what it wrote a second}, between neighbours."""
    names = sorted({name for _, point in points for name in point if name.endswith("_written")})
    found: dict[str, list[Any]] = {"t": [], **{name.removesuffix("_written"): [] for name in names}}
    for (before_ms, before), (at_ms, point) in pairwise(points):
        found["t"].append(at_ms / 1000)
        for name in names:
            old, new = before.get(name), point.get(name)
            usable = old is not None and new is not None and 0 < at_ms - before_ms <= GAP_MS
            found[name.removesuffix("_written")].append(max(0.0, (new - old) * 1000 / (at_ms - before_ms)) if usable else None)  # type: ignore[operator]
    return found


def _broken(points: list[tuple[int, Point]]) -> list[tuple[int, Point]]:
    """The points with an empty one where nobody looked for a while."""
    found: list[tuple[int, Point]] = []
    for at_ms, point in points:
        if found and at_ms - found[-1][0] > GAP_MS:
            found.append((at_ms - 1, {}))
        found.append((at_ms, point))
    return found


def rate(points: list[tuple[int, Point]], name: str) -> float | None:
    """How much `name` grew a second over the last RATE_MS; None while that cannot be said."""
    held = [(at_ms, value) for at_ms, point in points if (value := point.get(name)) is not None]
    if len(held) < 2 or now_ms() - held[-1][0] > GAP_MS:
        return None
    recent = [one for one in held if held[-1][0] - one[0] <= RATE_MS]
    if len(recent) < 2:
        return None
    (first_ms, first), (last_ms, last) = recent[0], recent[-1]
    return max(0.0, (last - first) * 1000 / (last_ms - first_ms)) if last_ms > first_ms else None


def _found(desk: Desk, name: str) -> dict[str, Any]:
    """The newest reading: `value` is None when there is none that is young enough to show."""
    reading: Reading = desk.sampler.newest(name)
    young = reading.value is not None and now_ms() - reading.at_ms <= OLD_MS
    return {"value": reading.value if young else None, "problem": reading.problem, "at_ms": reading.at_ms}
