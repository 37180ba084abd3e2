"""Files of rows: parquet, CSV, JSON lines (both gzip too) and Avro containers, as the columns that a mapping names.

Rows are counted from 0 in the file's own order; a line is counted from 1, as editors count.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from headrace.mapping import Mapping
from headrace.schemas.container import NotAContainer, read_container

GZIP, PARQUET, AVRO = b"\x1f\x8b", b"PAR1", b"Obj\x01"
KINDS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".avro": "avro",
         ".jsonl": "json lines", ".ndjson": "json lines", ".json": "json lines"}


class ReadError(Exception):
    """The file cannot be replayed; the message names the file and the row. Mend the file, or map another column."""


def read(path: str | Path, mapping: Mapping) -> pa.Table:
    """The mapped columns of `path` in file order; those of `mapping.texts` as text, lists joined by their separator.

    Raises ReadError, and MappingError when a mapped column is missing.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror}") from None
    kind = kind_of(path, head)
    try:
        table = READERS[kind](path, mapping)
    except (pa.ArrowException, OSError, EOFError, NotAContainer) as error:
        text = str(error) or type(error).__name__
        raise ReadError(text if text.startswith(str(path)) else f"{path}: not read as {kind}: {text}") from None
    if table.num_rows == 0:
        raise ReadError(f"{path}: holds no rows")
    separators = {name: separator for name, separator in mapping.features.values() if separator}
    for name in mapping.texts:
        table = table.set_column(table.column_names.index(name), name, _text(table[name], separators.get(name, "|"), name, path))
    return table


def kind_of(path: Path, head: bytes) -> str:
    """What `path` is, by its first bytes where those say it, else by its name."""
    if head == PARQUET:
        return "parquet"
    if head == AVRO:
        return "avro"
    names = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    kind = KINDS.get(names[-1]) if names else None
    if kind is None:
        raise ReadError(f"{path}: cannot tell what it is; name it {', '.join(KINDS)}, or one of them and .gz")
    return kind


def _parquet(path: Path, mapping: Mapping) -> pa.Table:
    with pa.parquet.ParquetFile(path) as file:
        mapping.check(file.schema_arrow.names, path)
        return file.read(list(mapping.columns)).combine_chunks()


def _csv(path: Path, mapping: Mapping, delimiter: str = ",") -> pa.Table:
    bad: list[str] = []

    def invalid(row: Any) -> str:
        bad.append(f"{path}: line {row.number}: {row.actual_columns} columns where the header has {row.expected_columns}")
        return "error"

    with _open(path) as file:
        header = pa.csv.open_csv(file, parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=lambda row: "skip"))
        mapping.check(header.schema.names, path)
    text = {name: pa.string() for name in mapping.texts}
    convert = pa.csv.ConvertOptions(include_columns=list(mapping.columns), column_types=text, strings_can_be_null=True,
                                    null_values=["", "NULL", "null"])
    parse = pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=invalid)
    with _open(path) as file:
        try:
            return pa.csv.read_csv(file, pa.csv.ReadOptions(use_threads=False), parse, convert).combine_chunks()
        except pa.ArrowInvalid:
            if bad:
                raise NotAContainer(bad[0]) from None
            raise


def _json_lines(path: Path, mapping: Mapping) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in mapping.columns}
    taken = list(columns.items())
    seen: dict[str, None] = {}
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise ReadError(f"{path}: line {number}: no JSON: {error}") from None
            if not isinstance(row, dict):
                raise ReadError(f"{path}: line {number}: no JSON object")
            if len(seen) < 200:
                seen.update(dict.fromkeys(row))
            for name, values in taken:
                values.append(row.get(name))
    if seen:
        mapping.check(seen, path)
    return _table(columns, path)


def _avro(path: Path, mapping: Mapping) -> pa.Table:
    names, rows = read_container(path)
    mapping.check(names, path)
    columns: dict[str, list[Any]] = {name: [] for name in mapping.columns}
    taken = list(columns.items())
    for row in rows:
        for name, values in taken:
            values.append(row.get(name))
    return _table(columns, path)


def _table(columns: dict[str, list[Any]], path: Path) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, TypeError):
            first = next((value for value in values if value is not None), None)
            kinds = (int, float) if isinstance(first, int | float) else type(first)
            row = next((i for i, value in enumerate(values) if value is not None and not isinstance(value, kinds)), 0)
            raise ReadError(f"{path}: row {row}: column {name!r} is {values[row]!r}, where earlier rows have {first!r}") from None
    return pa.table(arrays)


def _text(column: pa.ChunkedArray, separator: str, name: str, path: Path) -> pa.Array:
    """`column` as one array of strings; a list becomes its values joined by the separator."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        array = pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            return pa.compute.binary_join(array.cast(pa.list_(pa.string())), separator)
        return array.cast(pa.string())
    except pa.ArrowException as error:
        raise ReadError(f"{path}: column {name!r} of type {array.type} cannot be sent as text: {error}") from None


def _open(path: Path):
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP
    return gzip.open(path, "rb") if zipped else path.open("rb")


READERS: dict[str, Callable[[Path, Mapping], pa.Table]] = {
    "parquet": _parquet,
    "csv": _csv,
    "tsv": lambda path, mapping: _csv(path, mapping, "\t"),
    "json lines": _json_lines,
    "avro": _avro,
}
