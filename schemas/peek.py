"""Reads a datum that no decoder takes, as far as it goes: for a person who wants to see what was meant."""

from __future__ import annotations

import struct
from typing import Any

from headrace.schemas.walk import PRIMITIVES, walker

SHOWN_MAX = 200


def peek(schema: Any, data: bytes, start: int = 5) -> tuple[dict[str, Any], str]:
    """({field: value} up to the fault, the fault or ""): `data` from byte `start` on, by its parsed record `schema`.

    Texts that are not UTF-8 and bytes stay bytes. Raises Malformed("bad_schema") for a schema that cannot be walked safely.
    """
    walker(schema)  # refuses recursion and items without bytes
    cursor, fields = _Cursor(data, start), dict[str, Any]()
    try:
        cursor.record(schema, fields)
    except (_Fault, IndexError) as fault:
        return fields, f"byte {cursor.at}: {str(fault) if isinstance(fault, _Fault) else 'the datum ends here'}"
    left = len(data) - cursor.at
    return fields, f"byte {cursor.at}: {left} bytes after the datum" if left > 0 else ""


class _Fault(Exception):
    """Here it cannot be read on."""


class _Cursor:
    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at
        self._named: dict[str, Any] = {}

    def record(self, schema: dict[str, Any], fields: dict[str, Any]) -> None:
        """Filled in as it is read, so that a fault leaves what came before it."""
        self._named[schema["name"]] = schema
        for field in schema["fields"]:
            kind = field["type"]
            inner = self._record_of(kind)
            if inner is None:
                fields[field["name"]] = self.value(kind)
            else:
                fields[field["name"]] = {}
                self.record(inner, fields[field["name"]])

    def _record_of(self, schema: Any) -> dict[str, Any] | None:
        """The record that `schema` is, or whose branch of a union comes next."""
        if isinstance(schema, list):
            before = self.at
            inner = self._record_of(self._branch(schema))
            self.at = self.at if inner is not None else before
            return inner
        if isinstance(schema, str):
            return self._record_of(self._named[schema]) if schema in self._named else None
        return schema if schema["type"] in ("record", "error") else None

    def _branch(self, schema: list[Any]) -> Any:
        branch = self.number()
        if not 0 <= branch < len(schema):
            raise _Fault(f"branch {branch} of a union of {len(schema)}")
        return schema[branch]

    def value(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return self.value(self._branch(schema))
        if isinstance(schema, str):
            return self._primitive(schema) if schema in PRIMITIVES else self.value(self._named[schema])
        kind = schema["type"]
        if kind in ("record", "error"):
            fields: dict[str, Any] = {}
            self.record(schema, fields)
            return fields
        if kind in ("array", "map"):
            return self._items(schema, kind)
        if kind == "enum":
            at, symbols = self.number(), schema["symbols"]
            return symbols[at] if 0 <= at < len(symbols) else f"symbol {at} of {len(symbols)}"
        return self._take(schema["size"]) if kind == "fixed" else self.value(kind)

    def _items(self, schema: dict[str, Any], kind: str) -> Any:
        found: list[Any] = []
        while count := self.number():
            if count < 0:
                count = -count
                self.number()
            if count > len(self._data) - self.at:
                raise _Fault(f"a block of {count} items where {len(self._data) - self.at} bytes are left")
            for _ in range(count):
                found.append((self._primitive("string"), self.value(schema["values"])) if kind == "map" else self.value(schema["items"]))
        return dict(found) if kind == "map" else found

    def _primitive(self, kind: str) -> Any:
        if kind == "null":
            return None
        if kind == "boolean":
            return {0: False, 1: True}.get(byte := self._take(1)[0], byte)
        if kind in ("int", "long"):
            return self.number()
        if kind in ("float", "double"):
            return struct.unpack("<f" if kind == "float" else "<d", self._take(4 if kind == "float" else 8))[0]
        data = self._take(self.number())
        try:
            return data.decode() if kind == "string" else data
        except UnicodeDecodeError:
            return data

    def number(self) -> int:
        n = shift = 0
        while True:
            byte = self._data[self.at]
            self.at += 1
            n |= (byte & 127) << shift
            if byte < 128:
                return (n >> 1) ^ -(n & 1)
            shift += 7
            if shift > 63:
                raise _Fault("a number of more than 10 bytes")

    def _take(self, count: int) -> bytes:
        if count < 0 or count > len(self._data) - self.at:
            raise _Fault(f"a length of {count} where {len(self._data) - self.at} bytes are left")
        self.at += count
        return self._data[self.at - count : self.at]


def shown(value: Any) -> str:
    """A value in one line, without control characters, cut at 200."""
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}... ({len(text)} characters)"
