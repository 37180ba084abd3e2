"""Feature definitions as SQL: what each says as of a place in the log, from the interactions alone.

An implementation of its own, by joins instead of folds, so that it can find the stream wrong. Tables: `events` (seq, ts, user_id, item_id,
scene, action, value, context) in the order in which the shard folded them, `queries` (qid, seq, own, ts, user_id, item_id, scene, context):
what was seen at ts after the events below seq; own is 1 where the event of that seq is the exposure itself, which tells its own columns.
`feature_key(field, text)` is the key by which ids of one time are ordered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.features.definitions import Condition, Definition
from headrace.features.feature_set import VALUES

OWN = ("user.", "item.")


def text(value: str) -> str:
    """A literal."""
    return "'" + value.replace("'", "''") + "'"


def column(name: str, of: str = "") -> str:
    """A column's text of an event or a query; NULL where it has none, or nothing in it."""
    return f"nullif({of}context[{text(name.removeprefix('context.'))}], '')"


def values(name: str, of: str = "") -> str:
    """A list of a column's values."""
    if not name.startswith(OWN):
        return f"list_filter([{column(name, of)}], lambda one: one IS NOT NULL)"
    return f"list_filter(string_split(coalesce({column(name, of)}, ''), '|'), lambda one: one <> '')[:{VALUES}]"


def condition(one: Condition) -> str:
    parts = ["TRUE"]
    if one.actions:
        parts.append(f"action IN ({', '.join(map(text, one.actions))})")
    if one.scenes:
        parts.append(f"scene IN ({', '.join(map(text, one.scenes))})")
    for name, wanted in one.columns:
        parts.append(f"list_has_any({values(name)}, [{', '.join(map(text, wanted))}])")
    if one.least > -math.inf:
        parts.append(f"value >= {one.least!r}")
    if one.most < math.inf:
        parts.append(f"value <= {one.most!r}")
    return " AND ".join(parts)


def attribute(name: str) -> str:
    """A view of a user's or an item's column: (owner, seq, ts, held), each change of it. Of two at one time the greater key stands."""
    side = name.partition(".")[0]
    return f"""CREATE OR REPLACE TABLE {view_of(name)} AS
    WITH told AS (SELECT seq, ts, {side}_id AS owner, {values(name)} AS held, feature_key({text(name)}, {values(name)}[1]) AS stands
                  FROM events WHERE len({values(name)}) > 0),
    ranked AS (SELECT *, max(struct_pack(ts := ts, stands := stands)) OVER (
                   PARTITION BY owner ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM told)
    SELECT owner, seq, ts, held FROM ranked WHERE before IS NULL OR struct_pack(ts := ts, stands := stands) > before"""


def view_of(name: str) -> str:
    return "attribute_" + "".join(letter if letter.isalnum() else "_" for letter in name)


def rows_of(definition: Definition, source: str, keep: str, idle_ms: float) -> str:
    """SELECT of columns `keep` of `source`, and r1, r2: the rows that the entity has there, one a combination of values. Columns of users
    and items are as they stood below the place `sees`, unless they were told longer than idle_ms before."""
    joins, lists = [], []
    for place, part in enumerate(definition.entity):
        if part in ("user", "item"):
            lists.append(f"[t.{part}_id]")
        elif part == "scene":
            lists.append("[t.scene]")
        elif part.startswith(OWN):
            owner = f"t.{part.split('.')[0]}_id"
            joins.append(f"ASOF LEFT JOIN {view_of(part)} a{place} ON {owner} = a{place}.owner AND t.sees > a{place}.seq")
            lists.append(f"coalesce(a{place}.held, [])" if math.isinf(idle_ms) else
                         f"CASE WHEN t.ts - a{place}.ts <= {idle_ms!r} THEN a{place}.held ELSE [] END")
        else:
            lists.append(values(part, "t."))
    lists += ["['']"] * (2 - len(lists))
    return f"""SELECT {keep}, u1.r1, u2.r2 FROM (SELECT t.*, {lists[0]} AS l1, {lists[1]} AS l2 FROM ({source}) t {' '.join(joins)}) s,
        unnest(s.l1) AS u1(r1), unnest(s.l2) AS u2(r2)"""


def taken(definition: Definition) -> str:
    """SELECT seq, ts, sees, x, y, tokens, fields of events and what the definition takes of them."""
    base = "seq, ts, user_id, item_id, scene, context, seq + 1 AS sees"
    if definition.function is not None:
        name = text(definition.identity)
        return f"SELECT {base}, x, y, tokens FROM events JOIN calls USING (seq) WHERE definition = {name}"
    where = condition(definition.where)
    if definition.kind.takes == "token":
        own = {"user": "[user_id]", "item": "[item_id]", "scene": "[scene]"}.get(str(definition.value), values(str(definition.value)))
        return f"SELECT {base}, 1.0 AS x, 0.0 AS y, {own} AS tokens FROM events WHERE {where} AND len({own}) > 0"
    amount = f"{definition.value!r}"
    if isinstance(definition.value, str):
        amount = "value" if definition.value == "value" else f"number({column(definition.value)})"
    over = condition(definition.over) if definition.over is not None else "FALSE"
    return f"""SELECT {base}, CASE WHEN taken THEN amount ELSE 0.0 END AS x, CASE WHEN over THEN 1.0 ELSE 0.0 END AS y, [] AS tokens
    FROM (SELECT *, amount IS NOT NULL AND ({where}) AS taken FROM (SELECT *, {amount} AS amount, ({over}) AS over FROM events))
    WHERE taken OR over"""


def seen(definition: Definition, idle_ms: float) -> str:
    """SELECT qid, upto, and the events of the rows that each query sees: seq, ts, x, y, tokens. A row's events that its time to live has
    passed over, or that came too late for it, are not among them; none lives longer than idle_ms."""
    bound, ttl = "q.seq + q.own" if definition.reducer.startswith("lookup") else "q.seq", min(definition.ttl_ms, idle_ms)
    alive, life, lives = "SELECT *, 0 AS life FROM told", "", "TRUE"
    if not math.isinf(ttl):
        alive = f"""SELECT *, sum(CASE WHEN ts > newest + {ttl!r} THEN 1 ELSE 0 END) OVER (PARTITION BY r1, r2 ORDER BY seq) AS life
            FROM (SELECT *, max(ts) OVER (PARTITION BY r1, r2 ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest
                  FROM told) WHERE newest IS NULL OR ts >= newest - {ttl!r}"""
        lives = f"life = last_life AND asked_ts <= newest_ts + {ttl!r}"
        life = ", max(e.life) OVER w AS last_life"
    return f"""WITH told AS ({rows_of(definition, taken(definition), "seq, ts, x, y, tokens", idle_ms)}),
    alive AS ({alive}),
    asked AS ({rows_of(definition, "SELECT *, seq + own AS sees FROM queries", "qid, seq, own, ts", idle_ms)}),
    joined AS (SELECT q.qid, q.ts AS asked_ts, e.seq, e.ts, e.x, e.y, e.tokens, e.life, max(e.ts) OVER w AS newest_ts{life}
               FROM asked q JOIN alive e ON e.r1 = q.r1 AND e.r2 = q.r2 AND e.seq < {bound}
               WINDOW w AS (PARTITION BY q.qid, q.r1, q.r2))
    SELECT qid, greatest(asked_ts, max(ts) OVER (PARTITION BY qid)) AS upto, seq, ts, x, y, tokens FROM joined WHERE {lives}"""


def said(definition: Definition, idle_ms: float = math.inf) -> str:
    """SELECT qid, said: a number, or a list of texts, of every query that sees anything."""
    given = dict(definition.parameters)
    weight = "1.0" if not definition.half_life_ms else f"pow(2.0, -(upto - ts) / {definition.half_life_ms!r})"
    inside = "TRUE"
    if definition.window_ms:
        tile = definition.window_ms / definition.tiles
        inside = f"floor(ts / {tile!r}) > floor(upto / {tile!r}) - {definition.tiles}"
    x, y = f"coalesce(sum(x * {weight}) FILTER (WHERE {inside}), 0.0)", f"coalesce(sum(y * {weight}) FILTER (WHERE {inside}), 0.0)"
    n = int(given.get("n", 1))
    tokens = f"FROM (SELECT qid, upto, ts, x, unnest(tokens) AS token FROM ({seen(definition, idle_ms)}))"
    field = text(field_of(definition))
    prior, weigh = given.get("prior", 0.0), given.get("weight", 1.0)
    aggregates = {
        "count": x, "sum": x, "ratio": f"({x} + {prior} * {weigh}) / ({y} + {weigh})",
        "mean": f"sum(x * {weight}) / sum({weight})",
        "variance": f"greatest(sum(x * x * {weight}) / sum({weight}) - pow(sum(x * {weight}) / sum({weight}), 2), 0.0)",
        "first_time": "(max(upto) - min(ts)) / 1000.0", "last_time": "(max(upto) - max(ts)) / 1000.0",
        "lookup": "arg_max(x, struct_pack(ts := ts, x := x))",
        "lookup_id": f"arg_max(tokens, struct_pack(ts := ts, stands := feature_key({field}, tokens[1])))[:{n}]",
    }
    if definition.reducer in aggregates:
        return f"SELECT qid, {aggregates[definition.reducer]} AS said FROM ({seen(definition, idle_ms)}) GROUP BY qid"
    if definition.reducer == "distinct":
        return f"SELECT qid, list(DISTINCT token) AS said {tokens} GROUP BY qid"
    order = "max(ts)" if definition.reducer == "last_n" else f"sum(x * {weight})"
    return f"""SELECT qid, list(token ORDER BY rank DESC, stands DESC)[:{n}] AS said FROM (
        SELECT qid, token, {order} AS rank, feature_key({field}, token) AS stands {tokens} GROUP BY qid, token) GROUP BY qid"""


def field_of(definition: Definition) -> str:
    """The field under which its ids are keys."""
    if definition.function is not None:
        return definition.name
    return {"user": "user_id", "item": "item_id"}.get(str(definition.value), str(definition.value).removeprefix("context."))


def attributes_of(definitions: Sequence[Definition]) -> list[str]:
    """Columns of users and items that entities are made of."""
    return sorted({part for one in definitions for part in one.entity if part.startswith(OWN)})
