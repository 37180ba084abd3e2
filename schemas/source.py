"""[source] of a mapping: how the records of a topic are written, from where on they are read, and which changes of a table count."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

KEYS = ("format", "start", "ops")
FORMATS = ("json", "avro", "debezium-json", "debezium-avro")
COUNTING = ("c", "r", "u")
PROTOBUF = ("protobuf is not read: a message names no field without its .proto. Have the producer or a Kafka Connect converter write Avro"
            " or JSON beside it, or translate the topic with a Flink job (format protobuf of Flink SQL), and ingest what that writes")


class SourceError(Exception):
    """What a key of [source] says cannot be used; the message is the rest of a sentence that names the file."""


@dataclass(frozen=True)
class Source:
    """`format`: one of FORMATS. `start`: earliest, latest, or milliseconds of the broker's time. `ops`: changes of Debezium that count: c
    (created), r (read in the first snapshot), u (updated)."""

    format: str
    start: str | int = "earliest"
    ops: tuple[str, ...] = ("c", "r")

    @property
    def debezium(self) -> bool:
        return self.format.startswith("debezium")

    @property
    def avro(self) -> bool:
        return self.format.endswith("avro")


def source(values: Any) -> Source:
    """The section as parsed from TOML, its keys known. Raises SourceError."""
    given = values.get("format")
    if isinstance(given, str) and given.lower() in ("protobuf", "proto", "debezium-protobuf"):
        raise SourceError(f"format is {given!r}, and {PROTOBUF}")
    if given not in FORMATS:
        raise SourceError(f"format is {given!r}; write {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    made = Source(given, start_of(values.get("start", "earliest")))
    if "ops" not in values:
        return made
    ops = values["ops"]
    if not made.debezium:
        raise SourceError(f"ops is of Debezium's changes, and the format is {given!r}")
    if not isinstance(ops, list) or not ops or any(op not in COUNTING for op in ops):
        raise SourceError(f"ops is {ops!r}; write a list of {', '.join(COUNTING)}: deletions (d) never become interactions")
    return Source(given, made.start, tuple(dict.fromkeys(ops)))


def start_of(value: Any) -> str | int:
    """earliest, latest, or milliseconds of a time of ISO 8601 (UTC unless it says otherwise). Raises SourceError."""
    if value in ("earliest", "latest"):
        return value
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        return int((time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp() * 1000)
    except (AttributeError, ValueError, OverflowError):
        raise SourceError(f"start is {value!r}; write earliest, latest or a time as 2026-11-27T12:00:00Z") from None
