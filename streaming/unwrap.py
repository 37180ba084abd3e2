"""Messages of a topic that others write, as rows: JSON objects, Avro records, or the row after a change that Debezium tells of.

A row is a dict by field, as a line of a JSON file is. What is no row is either refused, with a reason, or left out and counted: a deletion
in a table is no interaction, nor is the record without a value that Debezium sends behind it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from headrace.schemas.codec import Foreign, Registry
from headrace.schemas.errors import Malformed
from headrace.schemas.source import Source

BYTES_MAX = 1 << 20
ENVELOPE = "envelope"
ASIDE = ("d", "t", "m")  # Debezium's deletion, truncation, and message of the application: no row
ROWS = ("c", "r", "u")


@dataclass
class Unwrapped:
    """What n messages are: `rows` at the positions `at` int[k] of them, ascending; `refused` positions with reasons; `aside`: how many of
    Debezium's changes were left out, by op ("tombstone": a record without a value)."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    refused: list[tuple[int, Malformed]] = field(default_factory=list)
    aside: Counter[str] = field(default_factory=Counter)


class Unwrap:
    """Reads messages as `source` says; `registry` is asked for Avro only. With `envelope` a row of Debezium holds the whole change too, as
    field `envelope`. Used by one thread at a time."""

    def __init__(self, source: Source, registry: Registry, *, envelope: bool = False, bytes_max: int = BYTES_MAX) -> None:
        self._source, self._envelope, self._bytes_max = source, envelope, bytes_max
        self._foreign = Foreign(registry, bytes_max=bytes_max)

    def read(self, messages: list[bytes | None]) -> Unwrapped:
        """Raises RegistryUnavailable."""
        made = Unwrapped()
        for at, message in enumerate(messages):
            try:
                row = self._row(message, made.aside)
            except Malformed as error:
                made.refused.append((at, error))
                continue
            if row is not None:
                made.rows.append(row)
                made.at.append(at)
        return made

    def _row(self, message: bytes | None, aside: Counter[str]) -> dict[str, Any] | None:
        source = self._source
        if message is None and source.debezium:
            aside["tombstone"] += 1
            return None
        datum = self._foreign.decode(message) if source.avro else self._json(message)
        if not isinstance(datum, dict):
            raise Malformed("bad_type", f"the record is no object with fields, it is {_shown(datum)}")
        return self._after(datum, aside) if source.debezium else datum

    def _json(self, message: bytes | None) -> Any:
        if message is None:
            raise Malformed("null_value", "the record has no value")
        if len(message) > self._bytes_max:
            raise Malformed("oversized", f"{len(message)} bytes; the limit is {self._bytes_max}")
        if not message:
            raise Malformed("empty", "the value has no bytes")
        try:
            return orjson.loads(message)
        except orjson.JSONDecodeError as error:
            looks = ": it begins as Confluent's Avro does, format avro" if message[0] == 0 else ""
            raise Malformed("not_json", f"{str(error)[:200]}{looks}") from None

    def _after(self, datum: dict[str, Any], aside: Counter[str]) -> dict[str, Any] | None:
        """The row of a change, in the envelope alone or in Kafka Connect's {schema, payload}; None when it does not count."""
        change = datum["payload"] if "payload" in datum and "op" not in datum else datum
        op = change.get("op") if isinstance(change, dict) else None
        if op in ASIDE or (op in ROWS and op not in self._source.ops):
            aside[op] += 1
            return None
        if op not in ROWS:
            hint = "" if isinstance(change, dict) and "op" in change else "; a flattened row is of format json or avro"
            raise Malformed("bad_envelope", f"op is {_shown(op)}, and Debezium's are c, r, u and d{hint}")
        after = change.get("after")
        if not isinstance(after, dict):
            raise Malformed("bad_envelope", f"op is {op!r}, and there is no row after it: after is {_shown(after)}")
        return {**after, ENVELOPE: change} if self._envelope else after


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def values_of(rows: list[dict[str, Any]], name: str) -> list[Any]:
    """The field `name` of each row, None where it is not there: a name with dots is a field of that name, else a path into objects."""
    if "." not in name:
        return [row.get(name) for row in rows]
    parts = name.split(".")
    return [row[name] if name in row else _dug(row, parts) for row in rows]


def _dug(row: Any, parts: list[str]) -> Any:
    for part in parts:
        if not isinstance(row, dict):
            return None
        row = row.get(part)
    return row


def paths(row: dict[str, Any], within: str = "") -> list[str]:
    """Every field of a row, those of objects by their path: what a mapping may name."""
    found = []
    for name, value in row.items():
        found += paths(value, f"{within}{name}.") if isinstance(value, dict) and value else [f"{within}{name}"]
    return found
