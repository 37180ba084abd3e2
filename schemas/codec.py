"""Records to bytes and back in Confluent's wire format: 0x00, schema id (4 bytes, big-endian), Avro datum."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import fastavro
from fastavro.schema import to_parsing_canonical_form

from headrace.schemas.errors import Malformed, RegistryUnavailable, UnknownSchema
from headrace.schemas.interaction import check_interaction
from headrace.schemas.walk import PRIMITIVES, Walker, walker

__all__ = ["SCHEMAS", "Codec", "Foreign", "Malformed", "Registry", "RegistryUnavailable", "check_interaction", "schema_name", "schema_text"]

SCHEMAS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text()) for file in sorted(Path(__file__).parent.glob("*.avsc"))}
T = TypeVar("T")
_PER_MODEL = ("touched", "weights")
_SAME = {"provisional": "samples"}  # topics whose records are those of another
BYTES_MAX = 1 << 20
SCHEMA_BYTES_MAX = 256 << 10
_NESTING_MAX = 200  # JSON levels: above what 32 levels of Avro need; the parser recurses in C without a limit
_UNKNOWN_S = 10.0
_UNKNOWN_MAX = 1024


class Registry(Protocol):
    """What a codec asks for: schemas.registry.RegistryClient, or schemas.registry_store.SchemaStore in one process."""

    def register(self, subject: str, text: str) -> int: ...

    def schema(self, schema_id: int) -> str: ...


def schema_name(topic: str) -> str:
    """Name in SCHEMAS of a topic's schema: `touched.fm` and `weights.fm` drop the model. Raises KeyError for an unknown topic."""
    head = topic.split(".", 1)[0]
    name = head if head in _PER_MODEL else _SAME.get(topic, topic)
    if name not in SCHEMAS:
        raise KeyError(f"no schema for topic {topic!r}; known: {', '.join(SCHEMAS)}")
    return name


def schema_text(name: str) -> str:
    """The schema of a topic as JSON in one line, docs included: what is registered, and what Flink's tables are given."""
    return json.dumps(SCHEMAS[schema_name(name)], separators=(",", ":"))


class Codec:
    """Encodes and decodes the records of one topic. Registers its schema under `<topic>-value` at the first encode.

    One codec is used by one thread at a time. `bytes_max` bounds a message with its 5 bytes of header.
    """

    def __init__(self, name: str, registry: Registry, *, bytes_max: int = BYTES_MAX) -> None:
        self.name = name
        self.subject = f"{name}-value"
        self._registry = registry
        self._bytes_max = bytes_max
        self._text = schema_text(name)
        self._schema = _parse(json.loads(self._text))
        self._header: bytes | None = None
        # of each: writer schema, reader schema or None when equal, walker
        self._writers: _Writers[tuple[Any, Any, Walker]] = _Writers(registry, self._prepare)

    def encode(self, record: dict[str, Any]) -> bytes:
        """The message of `record`; absent fields take their defaults. Raises ValueError or TypeError for a record that does not fit
        the schema (a defect of the caller), RegistryUnavailable before the first answer of the registry."""
        return self.header + self.datum(record)

    @property
    def header(self) -> bytes:
        """The 5 bytes before our datums. Raises as `encode`."""
        if self._header is None:
            self._header = struct.pack(">bI", 0, self._registry.register(self.subject, self._text))
        return self._header

    def datum(self, record: dict[str, Any]) -> bytes:
        """The datum of `record` under our schema, without a header. Raises as `encode`, and asks no registry."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._schema, record)
        return out.getvalue()

    def decode(self, data: bytes | None, *, bytes_max: int | None = None) -> dict[str, Any]:
        """The record of a message, resolved to our schema. Raises Malformed with a reason code; RegistryUnavailable: try again later.

        `bytes_max` overrides the codec's limit; None is a record without a value.
        """
        schema_id = _schema_id(data, bytes_max or self._bytes_max)
        assert data is not None, "a message without a value has no schema id"
        writer, reader, walk = self._writers.of(schema_id)
        walk(data, 5)
        source = io.BytesIO(data)
        source.seek(5)
        try:
            record: Any = fastavro.schemaless_reader(source, writer, reader)
        except UnicodeDecodeError as error:
            raise Malformed("bad_utf8", f"a string is not UTF-8: {error}") from None
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"[:200]
            raise Malformed("unresolvable", f"schema {schema_id} cannot be read as {self.name}: {fault}") from None
        if source.tell() != len(data):
            raise Malformed("trailing_bytes", f"{len(data) - source.tell()} bytes after the datum")
        return record

    def writer_schema(self, data: bytes | None) -> Any:
        """The parsed schema that a message was written with, for whoever reads what cannot be decoded. Raises as `decode`."""
        schema_id = _schema_id(data, len(data or b""))
        return self._writers.of(schema_id)[0]

    def alike(self) -> list[int]:
        """Ids of the writer schemas met so far under which a datum is written as under ours."""
        return [schema_id for schema_id, (_, reader, _) in self._writers.known.items() if reader is None]

    def _prepare(self, text: str) -> tuple[Any, Any, Walker]:
        """Guards of a writer schema, then what decoding needs of it."""
        writer = _guarded(text, _parse)
        name = writer.get("name") if isinstance(writer, dict) else None
        if name != self._schema["name"]:
            raise Malformed("wrong_record", f"the writer's record is {name}, topic {self.name} holds {self._schema['name']}")
        walk = _walkable(writer)
        same = to_parsing_canonical_form(writer) == to_parsing_canonical_form(self._schema)  # what docs and defaults say changes no datum
        return (self._schema if same else writer), (None if same else self._schema), walk


class Foreign:
    """Decodes records that others define, each by its writer's schema alone, under the same guards; logical types are read as such
    (timestamp-millis as datetime), as they are in a file. One is used by one thread at a time."""

    def __init__(self, registry: Registry, *, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._writers: _Writers[tuple[Any, Walker]] = _Writers(registry, _foreign)

    def decode(self, data: bytes | None) -> Any:
        """The datum of a message. Raises Malformed with a reason code; RegistryUnavailable: try again later."""
        schema_id = _schema_id(data, self._bytes_max)
        assert data is not None, "a message without a value has no schema id"
        writer, walk = self._writers.of(schema_id)
        walk(data, 5)
        source = io.BytesIO(data)
        source.seek(5)
        try:
            datum = fastavro.schemaless_reader(source, writer, None)
        except UnicodeDecodeError as error:
            raise Malformed("bad_utf8", f"a string is not UTF-8: {error}") from None
        except Exception as error:  # a logical type whose value Python cannot hold, say
            raise Malformed("bad_type", f"a value under schema {schema_id} cannot be read: {type(error).__name__}: {error}"[:200]) from None
        if source.tell() != len(data):
            raise Malformed("trailing_bytes", f"{len(data) - source.tell()} bytes after the datum")
        return datum


class _Writers(Generic[T]):
    """What `prepare` makes of each writer's schema, by its id; one that is refused is asked for again after 10 seconds."""

    def __init__(self, registry: Registry, prepare: Callable[[str], T]) -> None:
        self._registry, self._prepare = registry, prepare
        self.known: dict[int, T] = {}
        self._unknown: dict[int, tuple[float, str, str]] = {}  # until when, reason, detail

    def of(self, schema_id: int) -> T:
        """Raises Malformed, RegistryUnavailable."""
        known = self.known.get(schema_id)
        if known is not None:
            return known
        now = time.monotonic()
        until, reason, detail = self._unknown.get(schema_id, (0.0, "", ""))
        if now < until:
            raise Malformed(reason, detail)
        try:
            try:
                text = self._registry.schema(schema_id)
            except UnknownSchema as error:
                raise Malformed("unknown_schema", f"the registry has no schema {schema_id}: {error}") from None
            known = self.known[schema_id] = self._prepare(text)
        except Malformed as error:
            if len(self._unknown) >= _UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[schema_id] = (now + _UNKNOWN_S, error.reason, error.detail)
            raise
        return known


def _foreign(text: str) -> tuple[Any, Walker]:
    writer = _guarded(text, fastavro.parse_schema)
    return writer, _walkable(writer)


def _guarded(text: str, parse: Callable[[Any], Any]) -> Any:
    """The schema of a writer as `parse` gives it. Raises Malformed("bad_schema")."""
    if len(text) > SCHEMA_BYTES_MAX:
        raise Malformed("bad_schema", f"the writer schema has {len(text)} bytes; the limit is {SCHEMA_BYTES_MAX}")
    try:
        raw = json.loads(text)
        if _nesting(raw) > _NESTING_MAX:
            raise Malformed("bad_schema", f"the writer schema nests deeper than {_NESTING_MAX} levels of JSON")
        return parse(raw)
    except Malformed:
        raise
    except Exception as error:
        raise Malformed("bad_schema", f"the writer schema is no Avro: {type(error).__name__}: {error}"[:300]) from None


def _walkable(writer: Any) -> Walker:
    """The walker of a parsed schema. Raises Malformed("bad_schema")."""
    try:
        return walker(writer)
    except Malformed:
        raise
    except Exception as error:  # a size that is no number, say: fastavro's parser lets much pass
        raise Malformed("bad_schema", f"the writer schema cannot be walked: {type(error).__name__}: {error}"[:300]) from None


def _schema_id(data: bytes | None, bytes_max: int) -> int:
    """The schema id of a message. Raises Malformed for one that has no header and datum, or too many bytes."""
    if data is None:
        raise Malformed("null_value", "the record has no value")
    if len(data) > bytes_max:
        raise Malformed("oversized", f"{len(data)} bytes; the limit is {bytes_max}")
    if len(data) < 6 or data[0] != 0:
        if not data:
            raise Malformed("empty", "the value has no bytes")
        if data[0] != 0:
            looks = ", and it looks like JSON" if data.lstrip()[:1] in (b"{", b"[", b'"') else ""
            raise Malformed("bad_magic", f"the first byte is {data[:1].hex()}, expected 00{looks}")
        raise Malformed("short_header", f"{len(data)} bytes; a message has 5 of header and a datum")
    return int.from_bytes(data[1:5], "big")


def _parse(raw: Any) -> Any:
    """fastavro's form of a schema, without logical types (a long stays a long), defaults of bytes as bytes (fastavro leaves str)."""
    _strip_logical(raw)
    parsed = fastavro.parse_schema(raw)
    _defaults_to_bytes(parsed)
    return parsed


def _nesting(value: Any) -> int:
    """Levels of lists and dicts, without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [child for node in level if isinstance(node, (dict, list))
                 for child in (node.values() if isinstance(node, dict) else node)]
    return depth


def _strip_logical(node: Any) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            node.pop("logicalType", None)
        for key in ("type", "items", "values", "fields"):
            _strip_logical(node.get(key))
    elif isinstance(node, list):
        for child in node:
            _strip_logical(child)


def _defaults_to_bytes(node: Any) -> None:
    if isinstance(node, list):
        for child in node:
            _defaults_to_bytes(child)
    elif isinstance(node, dict):
        kind = node.get("type")
        if kind == "bytes" and isinstance(node.get("default"), str):
            node["default"] = node["default"].encode("latin-1")
        for key in ("type", "items", "values", "fields"):
            child = node.get(key)
            if not (isinstance(child, str) and child in PRIMITIVES):
                _defaults_to_bytes(child)
