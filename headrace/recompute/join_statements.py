"""Exposures joined with actions as SQL over the whole log at once: it shares nothing with the samples job's own (streaming/samples.py).

Tables: `log` (partition, offset, event_id, request_id, scene, user_id, item_id, action, value, ts), heartbeats too, without what was
refused and without retries; `samples`, the first of each cause and target; `letters` (partition, offset, reason), each once.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.recompute.statements import text
from headrace.schemas.targets import Target, windows

CARRIED = ("event_id", "request_id", "scene", "user_id", "item_id", "ts")
PLACE = '"partition", "offset"'


def told(out_of_orderness_ms: int) -> str:
    """Table `told`: the log, and of each record whether it is `late`, further behind what its partition had brought before it than it may
    be, whether a dead letter has `called` it so, or without exposure, and whether the samples job has certainly `read` it: something behind
    it in its partition has a sample or a dead letter."""
    return f"""CREATE TABLE told AS
    SELECT l.*, coalesce(l.ts <= max(l.ts) OVER (PARTITION BY l."partition" ORDER BY l."offset" ROWS BETWEEN UNBOUNDED PRECEDING
                                                 AND 1 PRECEDING) - {max(out_of_orderness_ms, 1)}, FALSE) AS late,
           {_called('late')} AS called_late, {_called('no_exposure')} AS called_orphan, coalesce(l."offset" < r.reached, FALSE) AS read
    FROM log l LEFT JOIN (SELECT "partition", max("offset") AS reached
                          FROM (SELECT {PLACE} FROM samples UNION ALL SELECT {PLACE} FROM letters) GROUP BY "partition") r
         ON r."partition" = l."partition" """


def _called(reason: str) -> str:
    return f"""EXISTS (SELECT 1 FROM letters d
            WHERE d."partition" = l."partition" AND d."offset" = l."offset" AND d.reason = {text(reason)})"""


def attributed(targets: Sequence[Target]) -> str:
    """Table `attributed`: every action and its exposure, the latest in the widest window before it of its user and item, and of its request
    when it names one, where that lies within the action's own window; `after_ms` it."""
    own = " ".join(f"WHEN {text(action)} THEN {ms}" for action, ms in windows(tuple(targets)).items())
    return f"""CREATE TABLE attributed AS
    SELECT a."partition", a."offset", a.action, a.value, a.ts, a.ts - max(e.ts) AS after_ms,
           arg_max(e."offset", struct_pack(ts := e.ts, o := e."offset")) AS exposure
    FROM told a JOIN told e ON e."partition" = a."partition" AND e.user_id = a.user_id AND e.item_id = a.item_id
         AND e.ts BETWEEN a.ts - {max(one.window_ms for one in targets)} AND a.ts AND (a.request_id IS NULL OR e.request_id = a.request_id)
    WHERE a.action NOT IN ('impression', 'heartbeat') AND e.action = 'impression' AND NOT a.late AND NOT e.late
    GROUP BY a."partition", a."offset", a.action, a.value, a.ts
    HAVING a.ts - max(e.ts) <= CASE a.action {own} ELSE {targets[0].window_ms} END"""


def expected(targets: Sequence[Target]) -> str:
    """Table `expected`: what the sample of each exposure and target must say."""
    return "CREATE TABLE expected AS " + " UNION ALL ".join(map(_expected, targets))


def _expected(target: Target) -> str:
    enough = "" if target.at_least is None else f" AND a.value >= {target.at_least!r}"
    hit = f"a.action = {text(target.action)} AND a.after_ms <= {target.window_ms}{enough}"
    return f"""
    SELECT e."partition", e."offset", {text(target.name)} AS target, {', '.join(f'any_value(e.{name}) AS {name}' for name in CARRIED)},
           CASE WHEN count(*) FILTER (WHERE {hit}) > 0 THEN 1.0 ELSE 0.0 END::DOUBLE AS label,
           coalesce(list_sort(list(DISTINCT a.action) FILTER (WHERE a.action IS NOT NULL)), []) AS actions,
           min(a.ts) FILTER (WHERE {hit}) AS action_ts
    FROM told e LEFT JOIN attributed a ON a."partition" = e."partition" AND a.exposure = e."offset"
    WHERE e.action = 'impression' AND NOT e.late GROUP BY e."partition", e."offset" """


def compared() -> str:
    """Table `compared`: (partition, offset, target, verdict, found, wanted) of every sample and of all that must be. `open`: its
    window may not be over, since no later exposure has a sample."""
    same = " AND ".join([f"s.{name} IS NOT DISTINCT FROM e.{name}" for name in CARRIED])
    shown = ", ".join(f"{name} := {{side}}.{name}" for name in ("label", "actions", "action_ts", *CARRIED))
    return f"""CREATE TABLE compared AS
    SELECT coalesce(s."partition", e."partition") AS "partition", coalesce(s."offset", e."offset") AS "offset",
           coalesce(s.target, e.target) AS target,
           CASE WHEN s."offset" IS NULL THEN CASE WHEN e.ts < (SELECT max(ts) FROM samples) THEN 'missing' ELSE 'open' END
                WHEN t.late THEN 'late' WHEN e."offset" IS NULL THEN 'extra'
                WHEN {same} AND s.label = e.label AND s.actions = e.actions AND s.action_ts IS NOT DISTINCT FROM e.action_ts THEN 'equal'
                ELSE 'different' END AS verdict,
           struct_pack({shown.format(side='s')}) AS found, struct_pack({shown.format(side='e')}) AS wanted
    FROM samples s FULL JOIN expected e ON s."partition" = e."partition" AND s."offset" = e."offset" AND s.target = e.target
    LEFT JOIN told t ON t."partition" = s."partition" AND t."offset" = s."offset" """


def fates(target: str) -> str:
    """Table `fates`: (partition, offset, action, fate) of every action: late, attributed, orphan, open, as the sample of its exposure for
    `target` is; or what is wrong with it: unsaid
    (it has no exposure and no dead letter says so), denied (the join finds its exposure, and a dead letter says that there is none)."""
    waits = "t.ts >= coalesce((SELECT max(ts) FROM samples), t.ts)"
    return f"""CREATE TABLE fates AS
    SELECT t."partition", t."offset", t.action,
           CASE WHEN t.late THEN 'late'
                WHEN a.exposure IS NULL THEN CASE WHEN t.called_orphan THEN 'orphan' WHEN {waits} THEN 'open' ELSE 'unsaid' END
                WHEN t.called_orphan THEN 'denied'
                WHEN c.verdict = 'open' THEN 'open' ELSE 'attributed' END AS fate
    FROM told t LEFT JOIN attributed a ON a."partition" = t."partition" AND a."offset" = t."offset"
    LEFT JOIN compared c ON c."partition" = a."partition" AND c."offset" = a.exposure AND c.target = {text(target)}
    WHERE t.action NOT IN ('impression', 'heartbeat')"""


VERDICTS = "SELECT verdict, count(*) FROM compared GROUP BY verdict"
VERDICTS_OF = "SELECT verdict, count(*) FROM compared WHERE target = ? GROUP BY verdict"
FATES = "SELECT fate, count(*) FROM fates GROUP BY fate"
LATE = "SELECT count(*) FROM told WHERE late AND action = 'impression'"
UNTOLD = f"SELECT {PLACE}, action FROM told WHERE late AND NOT called_late AND read AND action <> 'heartbeat' ORDER BY {PLACE}"
UNJUST = f"SELECT {PLACE}, action FROM told WHERE called_late AND NOT late ORDER BY {PLACE}"
ROWS = f"SELECT {PLACE}, target, found, wanted FROM compared WHERE verdict = ? ORDER BY {PLACE}, target LIMIT ?"
ACTIONS = f"SELECT {PLACE}, action FROM fates WHERE fate = ? ORDER BY {PLACE} LIMIT ?"
