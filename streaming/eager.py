"""Exposures joined with actions as they arrive, in Flink SQL alone: `enriched` -> `samples`, strategy `eager`, for live traffic.

A positive leaves when its action arrives, a negative when the window of its exposure has closed (Ktena et al., "Addressing Delayed Feedback
for Continuous Training with Neural Networks in CTR prediction", RecSys 2019, compare such strategies). Each step is insert-only:

1. late records leave for dead-letters, so that a late exposure never becomes a negative, as under `wait`;
2. each action finds its exposure: the newest of its (user, item) that came before it, or the one of its request when it names one, by an
   OVER aggregation in the order of arrival. `enriched` keeps a user's order, so that is the user's own order; by row time it would wait for
   the watermark;
3. exposures LEFT JOIN the target's actions in [exposure, exposure + window] on the exposure's cause: a match leaves at once;
4. the first row of a cause is its sample, whatever comes twice.

The order in which samples arrive tells their labels. So exposures are scored when they are made (streaming/scoring.py), never on arrival.
"""

from __future__ import annotations

from headrace.streaming import samples
from headrace.streaming.samples import CARRIED, CAUSE, listed
from headrace.streaming.tables import Connection, interval


def state_ttl_ms(window_ms: int, outage_ms: int) -> int:
    """How long by the clock steps 2 and 4 remember a key that nothing came for: two windows, for a backlog that is worked off half as fast
    as it came in, and as long an outage as is to cost no label. Who acts later finds no exposure (a dead letter); a cause that comes again
    is a second sample, which the shards' rings drop. Each second of it keeps a second of exposures, some 1 KB each, on the heap."""
    return 2 * window_ms + outage_ms


def views(window_ms: int, target: str, out_of_orderness_ms: int) -> list[str]:
    """The steps as views; `window_ms` is the attribution window, `target` the action that is learnt. ValueError for an odd target."""
    window = interval(window_ms)
    newest = ", ".join(f"LAST_VALUE(CASE WHEN `action` = 'impression' THEN `{name}` END) OVER w AS `n_{name}`"
                       for name in (*CAUSE, "ts_ms"))
    action_columns = f"{listed((*CAUSE, 'action', 'ts_ms', 'request_id', 'user_id', 'item_id'))}, `ts`"
    attribute = (f"SELECT {action_columns}, {newest} FROM (SELECT *, PROCTIME() AS `came` FROM interactions) WHERE {{where}} "
                 "WINDOW w AS (PARTITION BY {by} ORDER BY `came` ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)")
    within = f"`n_ts_ms` BETWEEN `ts_ms` - {window_ms} AND `ts_ms`"
    return [
        *samples.sides(target, out_of_orderness_ms),
        "CREATE TEMPORARY VIEW attributed AS SELECT * FROM ("
        + attribute.format(where="`action` = 'impression' OR `request_id` IS NULL", by="`user_id`, `item_id`")
        + ") WHERE `action` <> 'impression' UNION ALL SELECT * FROM ("
        + attribute.format(where="`request_id` IS NOT NULL", by="`user_id`, `item_id`, `request_id`")
        + ") WHERE `action` <> 'impression'",
        f"CREATE TEMPORARY VIEW matched AS SELECT * FROM attributed WHERE `action` = '{target}' AND {within}",
        f"CREATE TEMPORARY VIEW orphans AS SELECT * FROM attributed WHERE `n_ts_ms` IS NULL OR NOT ({within})",
        f"""CREATE TEMPORARY VIEW joined AS SELECT {listed(CARRIED, 'e.')}, e.`ts_ms`, a.`action`, a.`ts_ms` AS `action_ts_ms`
FROM exposures AS e LEFT JOIN matched AS a
ON e.`source` = a.`n_source` AND e.`partition` = a.`n_partition` AND e.`offset` = a.`n_offset`
AND a.`ts` BETWEEN e.`ts` AND e.`ts` + {window}""",
        f"""CREATE TEMPORARY VIEW closed AS SELECT {listed([*CARRIED, 'ts_ms', 'action_ts_ms'])},
  CASE WHEN `action` IS NULL THEN 0.0E0 ELSE 1.0E0 END AS `label`, COALESCE(`action`, '') AS `actions`
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {listed(CAUSE)} ORDER BY PROCTIME()) AS `copy` FROM joined) WHERE `copy` = 1""",
    ]


def tables(connection: Connection, out_of_orderness_ms: int) -> list[str]:
    """DDL of the job's source and sinks."""
    return samples.tables(connection, out_of_orderness_ms)


def inserts(target: str) -> list[str]:
    """The three INSERTs of the job's statement set."""
    return samples.leaving("eager", target)
