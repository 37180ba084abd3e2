"""Flink SQL columns of a topic, derived from its .avsc so that there is one definition of a record.

A column that is not nullable in Avro must be NOT NULL in the table too, items of arrays and values of maps included, or reading fails
deep inside Flink's Avro format.
"""

from __future__ import annotations

from typing import Any

from headrace.schemas.codec import SCHEMAS

_TYPES = {"string": "STRING", "bytes": "BYTES", "int": "INT", "long": "BIGINT", "float": "FLOAT", "double": "DOUBLE", "boolean": "BOOLEAN"}


def sql_type(avro: Any) -> str:
    """The SQL type of an Avro type, with NOT NULL where Avro has no null."""
    if isinstance(avro, list):
        inner = [one for one in avro if one != "null"]
        assert len(inner) == 1 and len(avro) == 2, "only unions of null and one type travel through SQL"
        return sql_type(inner[0]).removesuffix(" NOT NULL")
    if isinstance(avro, dict) and avro["type"] == "array":
        return f"ARRAY<{sql_type(avro['items'])}> NOT NULL"
    if isinstance(avro, dict) and avro["type"] == "map":
        return f"MAP<STRING NOT NULL, {sql_type(avro['values'])}> NOT NULL"
    return f"{_TYPES[avro if isinstance(avro, str) else avro['type']]} NOT NULL"


def columns(schema: str, only: list[str] | None = None) -> list[tuple[str, str]]:
    """(name, SQL type) of each field of `schema`, or of those in `only`."""
    return [(field["name"], sql_type(field["type"])) for field in SCHEMAS[schema]["fields"] if only is None or field["name"] in only]


def names(schema: str) -> list[str]:
    return [field["name"] for field in SCHEMAS[schema]["fields"]]
