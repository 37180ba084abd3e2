"""Avro container files, read row by row with the guards that fastavro lacks.

fastavro reads a file whose magic is wrong, dies of a deep recursive datum, and takes all memory for an array of items that have no
bytes: the magic and the file's own schema are checked before the first datum.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro

MAGIC = b"Obj\x01"


class NotAContainer(ValueError):
    """The file is no Avro container that can be read safely: write it again from its source, with a flat schema."""


def read_container(path: str | Path) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Field names, and the rows as dicts in file order. Raises NotAContainer (at the row, while iterating), OSError."""
    with Path(path).open("rb") as file:
        if file.read(4) != MAGIC:
            raise NotAContainer(f"{path}: does not start with the four bytes of an Avro container")
        file.seek(0)
        try:
            schema = fastavro.reader(file).writer_schema
        except Exception as error:  # whatever a broken header leads to
            raise NotAContainer(f"{path}: the header cannot be read: {error}") from None
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise NotAContainer(f"{path}: its schema is no record")
    _check(schema, (), path)
    return [field["name"] for field in schema["fields"]], _rows(path)


def _rows(path: str | Path) -> Iterator[dict[str, Any]]:
    row = 0
    with Path(path).open("rb") as file:
        try:
            for datum in fastavro.reader(file):
                assert isinstance(datum, dict), "a container of records, as its schema was checked to be"
                yield datum
                row += 1
        except GeneratorExit:
            raise
        except Exception as error:  # fastavro raises many kinds for a broken datum
            raise NotAContainer(f"{path}: row {row}: {str(error) or type(error).__name__}") from None


def _check(schema: Any, within: tuple[str, ...], path: str | Path) -> None:
    """Refuse recursion, and types whose values take no bytes inside arrays: a count of two billion of them is a few bytes on disk."""
    if isinstance(schema, str):
        if schema in within:
            raise NotAContainer(f"{path}: type {schema} holds itself; recursive schemas are not read")
    elif isinstance(schema, list):
        for branch in schema:
            _check(branch, within, path)
    elif schema["type"] in ("record", "error"):
        fields = [field["type"] for field in schema["fields"]]
        if all(_plain(kind) == "null" for kind in fields):
            raise NotAContainer(f"{path}: record {schema.get('name', '')} has no field that takes bytes")
        for kind in fields:
            _check(kind, (*within, schema.get("name", "")), path)
    elif schema["type"] == "fixed":
        if not schema.get("size"):
            raise NotAContainer(f"{path}: fixed {schema.get('name', '')} has no bytes")
    elif schema["type"] in ("array", "map"):
        inner = schema["items"] if schema["type"] == "array" else schema["values"]
        if _plain(inner) == "null":
            raise NotAContainer(f"{path}: an {schema['type']} of nulls")
        _check(inner, within, path)
    elif not isinstance(schema["type"], str):
        _check(schema["type"], within, path)


def _plain(schema: Any) -> Any:
    """The name of a type that is written in full, {"type": "null"} as "null"."""
    return schema["type"] if isinstance(schema, dict) and set(schema) == {"type"} else schema
