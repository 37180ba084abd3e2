"""Exposures joined with the actions of several targets, in Flink SQL alone: `enriched` -> `samples`, strategy `wait`.

The steps are those of one target (streaming/samples.py), and what differs is told here:

- the widest window of all targets bounds the join, and all samples of an exposure leave when it closes. An action counts within the window
  of its own targets, one of no target within that of the first: a further target changes nothing for the others;
- an exposure soon after another of its user and item is left out where a rule says so. An action that names its request counts for the one
  before, as one without a request does;
- a label is gathered for each target at once, and the rows of an exposure are made behind the join with the payload, so that this is kept
  once whatever the number of targets.
"""

from __future__ import annotations

from headrace.schemas.targets import CLICK, DWELL, QUIET, Noise, Target, named, windows
from headrace.streaming.samples import CARRIED, CAUSE, PACKED, leaving, listed, refused, sides
from headrace.streaming.tables import interval

_EVENT = (*CAUSE, "action", "value", "ts_ms", "request_id", "user_id", "item_id")


def views(targets: tuple[Target, ...], out_of_orderness_ms: int, noise: Noise = QUIET) -> list[str]:
    """The steps as views; the first of `targets` is samples.target. ValueError for an odd name."""
    widest_ms = max(one.window_ms for one in targets)
    window, idle = interval(widest_ms), interval(widest_ms + 1)  # one longer, as in streaming/samples.py
    labels = ",\n  ".join(column for number, one in enumerate(targets) for column in _label(number, one, noise))
    made = ", ".join(f"ROW(CAST('{named(one.name)}' AS STRING), l.`label_{number}`, l.`at_{number}`)" for number, one in enumerate(targets))
    attributed = _attributed_once(window, interval(noise.repeated_ms)) if noise.repeated_ms else _attributed(window)
    return [
        *sides(targets[0].name, out_of_orderness_ms),
        f"CREATE TEMPORARY VIEW caused AS SELECT *, {PACKED} AS `cause` FROM exposures",
        *attributed,
        f"CREATE TEMPORARY VIEW matched AS SELECT * FROM attributed WHERE {_inside(targets, noise)}",
        f"CREATE TEMPORARY VIEW orphans AS SELECT * FROM attributed WHERE `i_cause` IS NULL OR NOT ({_inside(targets, noise)})",
        f"""CREATE TEMPORARY VIEW joined AS
SELECT e.`cause`, e.`e_offset`, e.`ts`, a.`action`, a.`value`, a.`ts_ms` AS `a_ts_ms`, a.`ts_ms` - a.`i_ts_ms` AS `after_ms`
FROM {'kept' if noise.repeated_ms else 'caused'} AS e
LEFT JOIN matched AS a ON e.`cause` = a.`i_cause` AND a.`ts` BETWEEN e.`ts` - {idle} AND e.`ts` + {window}""",
        f"""CREATE TEMPORARY VIEW labels AS SELECT window_time AS `closed_at`, `cause`, MIN(`e_offset`) AS `first_offset`,
  COALESCE(LISTAGG(`action`), '') AS `actions`,
  {labels}
FROM TABLE(TUMBLE(TABLE joined, DESCRIPTOR(`ts`), INTERVAL '0.010' SECOND))
GROUP BY window_start, window_end, window_time, `cause`""",
        f"""CREATE TEMPORARY VIEW decided AS SELECT {listed([*CARRIED, 'ts_ms'], 'e.')}, e.`ts`, ARRAY[{made}] AS `made`,
  CASE WHEN POSITION(',' IN l.`actions`) > 0 THEN ARRAY_JOIN(ARRAY_DISTINCT(SPLIT(l.`actions`, ',')), ',') ELSE l.`actions` END AS `actions`
FROM labels AS l JOIN caused AS e ON l.`cause` = e.`cause` AND l.`first_offset` = e.`e_offset`
AND e.`ts` BETWEEN l.`closed_at` - INTERVAL '0.010' SECOND AND l.`closed_at`""",
        f"""CREATE TEMPORARY VIEW closed AS SELECT {listed([*CARRIED, 'ts_ms', 'ts', 'actions'])}, t.`target`, t.`label`, t.`action_ts_ms`
FROM decided CROSS JOIN UNNEST(`made`) AS t(`target`, `label`, `action_ts_ms`)""",
    ]


def inserts(noise: Noise = QUIET) -> list[str]:
    """The INSERTs of the job's statement set: three, and one for repeated exposures."""
    why = f"CONCAT('{noise.repeated_ms} ms or less after another of user ', `user_id`, ' and ', `item_id`)"
    repeated = [refused("repeated", "repeated_exposure", why)] if noise.repeated_ms else []
    return [*leaving("wait", None, f" ORDER BY `ts`, {listed((*CAUSE, 'target'))}"), *repeated]


def _found(names: tuple[str, ...], window: str, by: str) -> tuple[str, str]:
    """(columns of the last exposure before a row, the window that they are of)."""
    found = ", ".join(f"LAST_VALUE(CASE WHEN `action` = 'impression' THEN `{name}` END) OVER w AS `i_{name}`" for name in names)
    return found, f"WINDOW w AS (PARTITION BY {by} ORDER BY `ts` RANGE BETWEEN {window} PRECEDING AND CURRENT ROW)"


def _attributed_once(window: str, soon: str) -> list[str]:
    """Each action with its exposure, as `_attributed`, where repeated exposures are left out: `met` tells which are. An OVER window gives
    each row the first exposure of its (user, item) within `soon` before it, which is itself where there is no other."""
    by_pair, pair = _found(("cause", "ts_ms"), window, "`user_id`, `item_id`")
    by_request, request = _found(("cause", "ts_ms", "again"), window, "`user_id`, `item_id`, `request_id`")
    event = listed(_EVENT)
    return [
        f"""CREATE TEMPORARY VIEW met AS
SELECT {event}, `e_offset`, `ts`, `cause`, `action` = 'impression' AND `first_cause` <> `cause` AS `again`
FROM (SELECT {event}, `e_offset`, `ts`, `cause`, FIRST_VALUE(CASE WHEN `action` = 'impression' THEN `cause` END) OVER (
  PARTITION BY `user_id`, `item_id` ORDER BY `ts`
  RANGE BETWEEN {soon} PRECEDING AND CURRENT ROW) AS `first_cause` FROM (SELECT *, {PACKED} AS `cause` FROM interactions))""",
        "CREATE TEMPORARY VIEW kept AS SELECT * FROM met WHERE `action` = 'impression' AND NOT `again`",
        "CREATE TEMPORARY VIEW repeated AS SELECT * FROM met WHERE `again`",
        f"""CREATE TEMPORARY VIEW asked AS
SELECT * FROM (SELECT {event}, `ts`, {by_request} FROM met WHERE `request_id` IS NOT NULL {request})
WHERE `action` <> 'impression'""",
        f"""CREATE TEMPORARY VIEW attributed AS SELECT * FROM (SELECT {event}, `ts`, {by_pair} FROM (
  SELECT {event}, `ts`, `cause` FROM kept
  UNION ALL SELECT {event}, `ts`, `cause` FROM met WHERE `action` <> 'impression' AND `request_id` IS NULL
  UNION ALL SELECT {event}, `ts`, CAST(NULL AS STRING) AS `cause` FROM asked WHERE `i_again`) {pair}) WHERE `action` <> 'impression'
UNION ALL SELECT {event}, `ts`, `i_cause`, `i_ts_ms` FROM asked WHERE `i_again` IS NULL OR NOT `i_again`""",
    ]


def _attributed(window: str) -> list[str]:
    """Each action with the cause and time of its exposure: the latest in the widest window, or the one of its request."""
    by_pair, pair = _found(("cause", "ts_ms"), window, "{by}")
    attribute = f"SELECT {listed(_EVENT)}, `ts`, {by_pair} FROM (SELECT *, {PACKED} AS `cause` FROM interactions) WHERE {{where}} {pair}"
    return ["CREATE TEMPORARY VIEW attributed AS SELECT * FROM ("
            + attribute.format(where="`action` = 'impression' OR `request_id` IS NULL", by="`user_id`, `item_id`")
            + ") WHERE `action` <> 'impression' UNION ALL SELECT * FROM ("
            + attribute.format(where="`request_id` IS NOT NULL", by="`user_id`, `item_id`, `request_id`")
            + ") WHERE `action` <> 'impression'"]


def _inside(targets: tuple[Target, ...], noise: Noise) -> str:
    """Whether an action lies within its window after its exposure."""
    cases = " ".join(f"WHEN '{named(action)}' THEN {ms}" for action, ms in windows(targets, noise).items())
    return f"`ts_ms` - `i_ts_ms` <= CASE `action` {cases} ELSE {targets[0].window_ms} END"


def _label(number: int, target: Target, noise: Noise) -> tuple[str, str]:
    """The columns of a target: its label, and when the first action was that made it so, or would have: a click that is called accidental
    keeps its time."""
    enough = "" if target.at_least is None else f" AND `value` >= {target.at_least!r}"
    hit = f"`action` = '{named(target.action)}' AND `after_ms` <= {target.window_ms}{enough}"
    label = f"MAX(CASE WHEN {hit} THEN 1.0E0 ELSE 0.0E0 END)"
    if noise.accidental_s and target.action == CLICK:
        label = f"CASE WHEN MAX(CASE WHEN `action` = '{DWELL}' THEN `value` END) < {noise.accidental_s!r} THEN 0.0E0 ELSE {label} END"
    return (f"{label} AS `label_{number}`",
            f"MIN(CASE WHEN {hit} THEN `a_ts_ms` END) AS `at_{number}`")
