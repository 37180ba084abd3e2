"""Exposures joined with actions on event time, in Flink SQL alone: `enriched` -> `samples`, strategy `wait`.

One topic is both sides, so there is one watermark, and a stalled features job stalls both. Each step is insert-only, and all but the last
two carry a cause and times alone: the payload of an exposure is kept once, for the join that gives it its label.

1. late records leave for dead-letters, so that a late exposure never becomes a negative: those behind what their partition has brought
   before them by more than they may, as each record says itself (`newest_ms`, streaming/written.py). The watermark alone would not do: a
   restored job begins without one, while its windows remember which of them have closed, and would drop without a word what is late then.
   No watermark is ahead of a partition, so nothing that is in time is late further on;
2. each action finds its exposure: the latest of its (user, item) in the window before it, or the one of its request when it names one.
   An OVER window gives every action at most one exposure, without waiting for the window;
3. exposures LEFT JOIN attributed actions in [exposure, exposure + window] on the exposure's cause;
4. a tumbling window on the exposure's time gathers all actions of an exposure into one label and collapses duplicates of a cause,
   `window` after the exposure;
5. the label joins the first record of its cause in `enriched`, so that duplicates stay collapsed;
6. samples leave in the order of event time and cause. Without that last sort the positives of a tumbling window come before its negatives
   (they entered it first), and a model scored on arrival then has an AUC of 0.465 on shuffled labels. It is behind the join with the
   payload, which gives a row out when the later of its two sides comes. One task sorts, whatever the parallelism.
"""

from __future__ import annotations

from headrace.schemas.targets import named
from headrace.streaming.columns import names
from headrace.streaming.tables import Connection, avro_sink, avro_source, interval

_READ = [name for name in names("enriched") if name != "folded"]  # which is for those who fold the log again
CARRIED = [name for name in _READ if name not in ("action", "value", "ts_ms", "newest_ms")]
CAUSE = ("source", "partition", "offset")
# One column instead of three: an OVER window keeps a map of values for each column that it aggregates.
PACKED = "CONCAT_WS(':', CAST(`source` AS STRING), CAST(`partition` AS STRING), CAST(`offset` AS STRING))"
LEAST_MS = 1  # an event of its partition's newest time is in time: by a watermark of that very time it would be late
ONE_PHASE = {"table.optimizer.agg-phase-strategy": "ONE_PHASE"}  # a label has about one row: nothing to aggregate before the shuffle


def listed(columns: list[str] | tuple[str, ...], alias: str = "") -> str:
    """Columns of a SELECT, quoted."""
    return ", ".join(f"{alias}`{name}`" for name in columns)


def tables(connection: Connection, out_of_orderness_ms: int) -> list[str]:
    """DDL of the job's source and sinks."""
    source = avro_source(connection, "enriched", "enriched", "enriched", "samples", only=_READ, event_time="ts_ms",
                         out_of_orderness_ms=max(out_of_orderness_ms, LEAST_MS), position="e_offset")
    return [source,
            avro_sink(connection, "samples", "samples", "samples"),
            avro_sink(connection, "dead_letters", "dead-letters", "dead-letters", keyed=False)]


def sides(target: str, out_of_orderness_ms: int) -> list[str]:
    """Both sides of the join as views: what is late, what is in time, exposures. ValueError for an odd target."""
    named(target)
    behind = f"`ts_ms` <= `newest_ms` - {max(out_of_orderness_ms, LEAST_MS)}"
    late = f"({behind} OR (CURRENT_WATERMARK(`ts`) IS NOT NULL AND `ts` <= CURRENT_WATERMARK(`ts`)))"
    return [
        f"CREATE TEMPORARY VIEW in_time AS SELECT * FROM enriched WHERE NOT {late}",
        f"CREATE TEMPORARY VIEW late AS SELECT * FROM enriched WHERE `action` <> 'heartbeat' AND {late}",
        "CREATE TEMPORARY VIEW interactions AS SELECT * FROM in_time WHERE `action` <> 'heartbeat'",
        "CREATE TEMPORARY VIEW exposures AS SELECT * FROM interactions WHERE `action` = 'impression'",
    ]


def views(window_ms: int, target: str, out_of_orderness_ms: int) -> list[str]:
    """The steps as views; `window_ms` is the attribution window, `target` the action that is learnt. ValueError for an odd target."""
    window = interval(window_ms)
    # The join gives an unmatched exposure out one millisecond after `window`, and delays its watermark by the longer of its two bounds: the
    # lower one, which attribution has made idle, is a millisecond longer so that the tumbling window never has closed before.
    idle = interval(window_ms + 1)
    found = "LAST_VALUE(CASE WHEN `action` = 'impression' THEN `cause` END) OVER w AS `i_cause`"
    action_columns = f"{listed((*CAUSE, 'action', 'ts_ms', 'request_id', 'user_id', 'item_id'))}, `ts`"
    windowed = f"WINDOW w AS (PARTITION BY {{by}} ORDER BY `ts` RANGE BETWEEN {window} PRECEDING AND CURRENT ROW)"
    attribute = f"SELECT {action_columns}, {found} FROM (SELECT *, {PACKED} AS `cause` FROM interactions) WHERE {{where}} " + windowed
    return [
        *sides(target, out_of_orderness_ms),
        "CREATE TEMPORARY VIEW attributed AS SELECT * FROM ("
        + attribute.format(where="`action` = 'impression' OR `request_id` IS NULL", by="`user_id`, `item_id`")
        + ") WHERE `action` <> 'impression' UNION ALL SELECT * FROM ("
        + attribute.format(where="`request_id` IS NOT NULL", by="`user_id`, `item_id`, `request_id`")
        + ") WHERE `action` <> 'impression'",
        "CREATE TEMPORARY VIEW matched AS SELECT `i_cause`, `action`, `ts_ms`, `ts` FROM attributed WHERE `i_cause` IS NOT NULL",
        "CREATE TEMPORARY VIEW orphans AS SELECT * FROM attributed WHERE `i_cause` IS NULL",
        f"CREATE TEMPORARY VIEW caused AS SELECT *, {PACKED} AS `cause` FROM exposures",
        f"""CREATE TEMPORARY VIEW joined AS SELECT e.`cause`, e.`e_offset`, e.`ts`, a.`action`, a.`ts_ms` AS `a_ts_ms`
FROM caused AS e LEFT JOIN matched AS a ON e.`cause` = a.`i_cause` AND a.`ts` BETWEEN e.`ts` - {idle} AND e.`ts` + {window}""",
        f"""CREATE TEMPORARY VIEW labels AS SELECT window_time AS `closed_at`, `cause`, MIN(`e_offset`) AS `first_offset`,
  MAX(CASE WHEN `action` = '{target}' THEN 1.0E0 ELSE 0.0E0 END) AS `label`,
  COALESCE(LISTAGG(`action`), '') AS `actions`,
  MIN(CASE WHEN `action` = '{target}' THEN `a_ts_ms` END) AS `action_ts_ms`
FROM TABLE(TUMBLE(TABLE joined, DESCRIPTOR(`ts`), INTERVAL '0.010' SECOND))
GROUP BY window_start, window_end, window_time, `cause`""",
        # The closing time lies in the exposure's tumbling window of 10 ms, so the payload is waited for no longer than that.
        f"""CREATE TEMPORARY VIEW closed AS SELECT {listed([*CARRIED, 'ts_ms'], 'e.')}, e.`ts`, l.`label`, l.`action_ts_ms`,
  CASE WHEN POSITION(',' IN l.`actions`) > 0 THEN ARRAY_JOIN(ARRAY_DISTINCT(SPLIT(l.`actions`, ',')), ',') ELSE l.`actions` END AS `actions`
FROM labels AS l JOIN caused AS e ON l.`cause` = e.`cause` AND l.`first_offset` = e.`e_offset`
AND e.`ts` BETWEEN l.`closed_at` - INTERVAL '0.010' SECOND AND l.`closed_at`""",
    ]


def inserts(target: str) -> list[str]:
    """The three INSERTs of the job's statement set."""
    return leaving("wait", target, f" ORDER BY `ts`, {listed(CAUSE)}")


def sample(strategy: str, target: str | None) -> str:
    """Columns of a sample, of a view that has its label, and where `target` is None its target."""
    made = {"strategy": f"'{strategy}'", "weight": "1.0E0"} | ({} if target is None else {"target": f"'{target}'"})
    return ", ".join(made.get(name, f"`{name}`") for name in names("samples"))


def leaving(strategy: str, target: str | None, order: str = "") -> list[str]:
    """The INSERTs of views `closed`, `late` and `orphans`; samples leave in `order`, or as they come."""
    return [
        f"INSERT INTO samples SELECT `user_id`, {sample(strategy, target)} FROM closed{order}",
        refused("late", "late", "CONCAT(`action`, ' of event time ', CAST(`ts_ms` AS STRING), ' came too far behind its partition')"),
        refused("orphans", "no_exposure", "CONCAT(`action`, ' of user ', `user_id`, ' has no exposure of ', `item_id`, ' in its window')"),
    ]


def refused(view: str, reason: str, detail: str) -> str:
    """The INSERT of a view's records into the dead letters; `detail` is SQL."""
    now = "TIMESTAMPDIFF(SECOND, TO_TIMESTAMP_LTZ(0, 3), CURRENT_TIMESTAMP) * CAST(1000 AS BIGINT)"
    return f"INSERT INTO dead_letters SELECT 'interactions', `partition`, `offset`, '{reason}', {detail}, x'', {now} FROM {view}"
