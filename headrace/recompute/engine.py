"""Features of a log as of places in it, and any other tables, by DuckDB: the only importer of it here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from headrace.features.definitions import Definition
from headrace.features.inputs import number
from headrace.recompute import statements
from headrace.schemas.hashing import feature_key


def database(tables: Mapping[str, pa.Table]) -> Any:
    """A connection to a database in memory with `tables` by name, to be closed by who asked."""
    made = duckdb.connect()
    for name, table in tables.items():
        made.register("incoming", table)
        made.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")
        made.unregister("incoming")
    return made


class Query(NamedTuple):
    """What was seen at `ts_ms` after the events below `sequence`; `own`: the event of that sequence is the exposure itself."""

    sequence: int
    own: bool
    ts_ms: int
    user: str
    item: str
    scene: str
    context: Mapping[str, str]


class Recomputed:
    """Over `events`: (sequence, interaction) of all that a shard folded, in any order; `idle_s` as the shard's."""

    def __init__(self, definitions: Sequence[Definition], events: Sequence[tuple[int, Mapping[str, Any]]], idle_s: float = 0.0) -> None:
        self.definitions, self.idle_s = definitions, idle_s
        self._db = duckdb.connect()
        self._db.create_function("feature_key", _key, ["VARCHAR", "VARCHAR"], "UBIGINT", null_handling="special")  # type: ignore[call-overload]
        self._db.create_function("number", _number, ["VARCHAR"], "DOUBLE", null_handling="special")  # type: ignore[call-overload]
        self._put("events", [{"seq": sequence, "ts": float(record["ts_ms"]), "value": record["value"], "action": record["action"],
                              **_who(record["user_id"], record["item_id"], record["scene"], record["context"])}
                             for sequence, record in events])
        calls = [call for one in definitions if one.function is not None for call in _calls(one, events)]
        self._put("calls", calls or [{"definition": "", "seq": -1, "x": 0.0, "y": 0.0, "tokens": [""]}])
        for name in statements.attributes_of(definitions):
            self._db.execute(statements.attribute(name))

    def seen(self, queries: Sequence[Query]) -> list[dict[str, Any]]:
        """{definition's identity: number, or texts of ids} of each query. `distinct` gives the texts themselves: how many are estimated."""
        self._put("queries", [{"qid": qid, "seq": one.sequence, "own": int(one.own), "ts": float(one.ts_ms),
                               **_who(one.user, one.item, one.scene, one.context)} for qid, one in enumerate(queries)])
        answers: list[dict[str, Any]] = [{one.identity: [] if one.reducer == "distinct" or one.state.width else one.blank
                                          for one in self.definitions} for _ in queries]
        for one in self.definitions:
            for qid, said in self._db.execute(statements.said(one, 1000.0 * self.idle_s or math.inf)).fetchall():
                answers[qid][one.identity] = said if isinstance(said, list) else float(said)
        return answers

    def close(self) -> None:
        self._db.close()

    def _put(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        table = pa.Table.from_pylist(list(rows))
        self._db.register("incoming", table)
        context = "* REPLACE (map_from_entries(context) AS context)" if "context" in table.column_names else "*"
        self._db.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT {context} FROM incoming")
        self._db.unregister("incoming")


def _who(user: str, item: str, scene: str, context: Mapping[str, str]) -> dict[str, Any]:
    entries = [{"k": name, "v": text} for name, text in context.items()]
    return {"user_id": user, "item_id": item, "scene": scene, "context": entries or [{"k": "", "v": ""}]}


def _key(field: str, text: str | None) -> int:
    return 0 if text is None else feature_key(field, text)


def _number(text: str | None) -> float | None:
    found = math.nan if text is None else number(text)
    return None if math.isnan(found) else found


def _calls(definition: Definition, events: Sequence[tuple[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """What a definition's function takes of events."""
    assert definition.function is not None
    found = []
    for sequence, record in events:
        made = definition.function(record)
        if made is None or (made is False and definition.kind.takes in ("nothing", "token")):
            continue
        tokens = definition.kind.takes == "token"
        texts = [made] if isinstance(made, str) else made if tokens else [""]
        if texts:
            found.append({"definition": definition.identity, "seq": sequence, "x": 1.0 if tokens else float(made),
                          "y": 1.0, "tokens": [text for text in texts if text][:statements.VALUES] if tokens else [""]})
    return found
