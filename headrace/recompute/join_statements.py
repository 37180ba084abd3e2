"""Exposures joined with actions as SQL over the whole log at once: it shares nothing with the samples job's own (streaming/samples.py).

Tables: `log` (partition, offset, event_id, request_id, scene, user_id, item_id, action, value, ts), heartbeats too, without what was
refused and without retries; `samples`, the first of each cause and target; `letters` (partition, offset, reason), each once.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.recompute.statements import text
from headrace.schemas.targets import CLICK, DWELL, Noise, Target, windows

CARRIED = ("event_id", "request_id", "scene", "user_id", "item_id", "ts")
PLACE = '"partition", "offset"'


def told(repeated_ms: int) -> str:
    """Table `told`: `placed`, and whether an exposure in time comes `again`, at most `repeated_ms` after another of its user and item."""
    shown = "action = 'impression' AND NOT late"
    before = f"lag(ts) OVER (PARTITION BY user_id, item_id, {shown} ORDER BY ts, {PLACE})"
    again = f"coalesce({shown} AND ts - {before} <= {repeated_ms}, FALSE)" if repeated_ms else "FALSE"
    return f"CREATE TABLE told AS SELECT *, {again} AS again FROM placed"


def placed(out_of_orderness_ms: int) -> str:
    """Table `placed`: the log, and of each record whether it is `late`, further behind what its partition had brought before it than it may
    be, whether a dead letter has `called` it so, or without exposure, and whether the samples job has certainly `read` it: something behind
    it in its partition has a sample or a dead letter."""
    return f"""CREATE TABLE placed AS
    SELECT l.*, coalesce(l.ts <= max(l.ts) OVER (PARTITION BY l."partition" ORDER BY l."offset" ROWS BETWEEN UNBOUNDED PRECEDING
                                                 AND 1 PRECEDING) - {max(out_of_orderness_ms, 1)}, FALSE) AS late,
           {_called('late')} AS called_late, {_called('no_exposure')} AS called_orphan,
           {_called('repeated_exposure')} AS called_again, coalesce(l."offset" < r.reached, FALSE) AS read
    FROM log l LEFT JOIN (SELECT "partition", max("offset") AS reached
                          FROM (SELECT {PLACE} FROM samples UNION ALL SELECT {PLACE} FROM letters) GROUP BY "partition") r
         ON r."partition" = l."partition" """


def _called(reason: str) -> str:
    return f"""EXISTS (SELECT 1 FROM letters d
            WHERE d."partition" = l."partition" AND d."offset" = l."offset" AND d.reason = {text(reason)})"""


def attributed(targets: Sequence[Target], noise: Noise) -> str:
    """Table `attributed`: every action and its exposure, the latest in the widest window before it of its user and item, and of its request
    when it names one, where that lies within the action's own window; `after_ms` it. An action that names the request of an exposure that
    comes again is as one that names none."""
    own = " ".join(f"WHEN {text(action)} THEN {ms}" for action, ms in windows(tuple(targets), noise).items())
    widest_ms = max(one.window_ms for one in targets)
    again = f"""(SELECT arg_max(n.again, struct_pack(ts := n.ts, o := n."offset")) FROM told n
            WHERE n."partition" = a."partition" AND n.user_id = a.user_id AND n.item_id = a.item_id AND n.request_id = a.request_id
              AND n.ts BETWEEN a.ts - {widest_ms} AND a.ts AND n.action = 'impression' AND NOT n.late)"""
    named = f"a.request_id IS NULL OR e.request_id = a.request_id{f' OR coalesce({again}, FALSE)' if noise.repeated_ms else ''}"
    return f"""CREATE TABLE attributed AS
    SELECT a."partition", a."offset", a.action, a.value, a.ts, a.ts - max(e.ts) AS after_ms,
           arg_max(e."offset", struct_pack(ts := e.ts, o := e."offset")) AS exposure
    FROM told a JOIN told e ON e."partition" = a."partition" AND e.user_id = a.user_id AND e.item_id = a.item_id
         AND e.ts BETWEEN a.ts - {widest_ms} AND a.ts AND NOT e.again AND ({named})
    WHERE a.action NOT IN ('impression', 'heartbeat') AND e.action = 'impression' AND NOT a.late AND NOT e.late
    GROUP BY a."partition", a."offset", a.action, a.value, a.ts
    HAVING a.ts - max(e.ts) <= CASE a.action {own} ELSE {targets[0].window_ms} END"""


def expected(targets: Sequence[Target], noise: Noise) -> str:
    """Table `expected`: what the sample of each exposure and target must say."""
    return "CREATE TABLE expected AS " + " UNION ALL ".join(_expected(one, noise) for one in targets)


def _expected(target: Target, noise: Noise) -> str:
    accident = f"coalesce(max(a.value) FILTER (WHERE a.action = {text(DWELL)}) < {noise.accidental_s!r}, FALSE)"
    meant = f"NOT {accident}" if noise.accidental_s and target.action == CLICK else "TRUE"
    enough = "" if target.at_least is None else f" AND a.value >= {target.at_least!r}"
    hit = f"a.action = {text(target.action)} AND a.after_ms <= {target.window_ms}{enough}"
    return f"""
    SELECT e."partition", e."offset", {text(target.name)} AS target, {', '.join(f'any_value(e.{name}) AS {name}' for name in CARRIED)},
           CASE WHEN count(*) FILTER (WHERE {hit}) > 0 AND {meant} THEN 1.0 ELSE 0.0 END::DOUBLE AS label,
           coalesce(list_sort(list(DISTINCT a.action) FILTER (WHERE a.action IS NOT NULL)), []) AS actions,
           min(a.ts) FILTER (WHERE {hit}) AS action_ts
    FROM told e LEFT JOIN attributed a ON a."partition" = e."partition" AND a.exposure = e."offset"
    WHERE e.action = 'impression' AND NOT e.late AND NOT e.again GROUP BY e."partition", e."offset" """


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
AGAIN = "SELECT count(*) FROM told WHERE again"
UNTOLD_AGAIN = f"SELECT {PLACE}, action FROM told WHERE again AND NOT called_again AND read ORDER BY {PLACE}"
UNJUST_AGAIN = f"SELECT {PLACE}, action FROM told WHERE called_again AND NOT again ORDER BY {PLACE}"
LATE = "SELECT count(*) FROM told WHERE late AND action = 'impression'"
UNTOLD = f"SELECT {PLACE}, action FROM told WHERE late AND NOT called_late AND read AND action <> 'heartbeat' ORDER BY {PLACE}"
UNJUST = f"SELECT {PLACE}, action FROM told WHERE called_late AND NOT late ORDER BY {PLACE}"
ROWS = f"SELECT {PLACE}, target, found, wanted FROM compared WHERE verdict = ? ORDER BY {PLACE}, target LIMIT ?"
ACTIONS = f"SELECT {PLACE}, action FROM fates WHERE fate = ? ORDER BY {PLACE} LIMIT ?"
