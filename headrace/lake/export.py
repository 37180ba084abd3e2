"""A lake's samples as one file, hour by hour: memory holds an hour of event time, not the lake."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from headrace.lake.columns import SCHEMA
from headrace.lake.errors import BadRange
from headrace.lake.reader import Choice, Lake, by_hour

SEPARATOR = "|"


def export(lake: Lake, to: Path, chosen: Choice, change: Callable[[pa.Table], pa.Table] = lambda table: table) -> int:
    """Write `to` (.parquet, or .csv with lists as text joined by |), whole or not at all; how many rows. `change` makes of an hour's
    samples what is written, the same columns of all.

    Raises BadRange for another ending, OSError, LakeDamaged.
    """
    if to.suffix not in (".parquet", ".csv"):
        raise BadRange(f"{to}: cannot tell what to write; name it FILE.parquet or FILE.csv")
    fresh, rows = to.with_name(f".{to.name}.new"), 0
    empty = change(SCHEMA.empty_table())
    schema = empty.schema if to.suffix == ".parquet" else _flat(empty).schema
    try:
        with open(fresh, "wb") as file, _writer(to, file, schema) as writer:
            for table in map(change, by_hour(lake, chosen, SCHEMA.names)):
                writer.write_table((_flat(table) if to.suffix == ".csv" else table).cast(schema))
                rows += len(table)
        os.replace(fresh, to)
    finally:
        fresh.unlink(missing_ok=True)
    return rows


def _writer(to: Path, file: object, schema: pa.Schema) -> pyarrow.parquet.ParquetWriter | pyarrow.csv.CSVWriter:
    if to.suffix == ".csv":
        return pyarrow.csv.CSVWriter(file, schema)
    return pyarrow.parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)


def _flat(table: pa.Table) -> pa.Table:
    """Lists as text."""
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_list(column.type):
            column = column.combine_chunks()
            if not pa.types.is_string(column.type.value_type):
                column = pa.ListArray.from_arrays(column.offsets, column.values.cast(pa.string()))
            column = pc.binary_join(column, SEPARATOR)
        columns[name] = column
    return pa.table(columns)
