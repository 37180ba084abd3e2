"""Files of rows: parquet, CSV, JSON lines (both gzip too) and Avro containers, as the columns that a mapping names.

Rows are counted from 0 in the file's own order; a line is counted from 1, as editors count.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from headrace.schemas.container import NotAContainer, read_container
from headrace.schemas.mapped import WrongKind, as_text
from headrace.schemas.mapping import Mapping, MappingError

GZIP, PARQUET, AVRO = b"\x1f\x8b", b"PAR1", b"Obj\x01"
KINDS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".avro": "avro",
         ".jsonl": "json lines", ".ndjson": "json lines", ".json": "json lines"}


class ReadError(Exception):
    """The file cannot be replayed; the message names the file and the row. Mend the file, or map another column."""


@dataclass
class Skipped:
    """Rows that a lenient reader left out, (line, why) of each; `lines`: where the others stand, when the file has lines."""

    rows: list[tuple[int, str]] = field(default_factory=list)
    lines: list[int] | None = None


def read(path: str | Path, mapping: Mapping, skipped: Skipped | None = None) -> pa.Table:
    """The mapped columns of `path` in file order; those of `mapping.texts` as text, lists joined by their separator.

    A row that cannot be read ends it, or with `skipped` is left out and told there. Raises ReadError, and MappingError when a mapped
    column is missing.
    """
    path = Path(path)
    if mapping.events is not None:
        raise MappingError(f"{path}: [events] is of topics (headrace ingest); a row of a file is an exposure with its label")
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror}") from None
    kind = kind_of(path, head)
    try:
        table = READERS[kind](path, mapping, skipped)
    except (pa.ArrowException, OSError, EOFError, NotAContainer) as error:
        text = str(error) or type(error).__name__
        raise ReadError(text if text.startswith(str(path)) else f"{path}: not read as {kind}: {text}") from None
    if table.num_rows == 0:
        raise ReadError(f"{path}: holds no rows")
    separators = {name: separator for name, separator in mapping.features.values() if separator}
    for name in mapping.texts:
        try:
            table = table.set_column(table.column_names.index(name), name, as_text(table[name], separators.get(name, "|")))
        except WrongKind as error:
            raise ReadError(f"{path}: column {name!r} {error}") from None
    return table


def peek(path: str | Path, rows_max: int) -> pa.Table:
    """All columns of the first `rows_max` rows of `path`, as the file has them. Raises ReadError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            kind = kind_of(path, file.read(4))
        table = PEEKS[kind](path, rows_max).slice(0, rows_max)
    except (pa.ArrowException, OSError, EOFError, NotAContainer) as error:
        raise ReadError(f"{path}: not read: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}") from None
    if table.num_rows == 0:
        raise ReadError(f"{path}: holds no rows")
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


def _parquet(path: Path, mapping: Mapping, skipped: Skipped | None) -> pa.Table:
    with pa.parquet.ParquetFile(path) as file:
        mapping.check(file.schema_arrow.names, path)
        return file.read(list(mapping.columns)).combine_chunks()


def _csv(path: Path, mapping: Mapping, skipped: Skipped | None, delimiter: str = ",") -> pa.Table:
    bad: list[tuple[int, str]] = []

    def invalid(row: Any) -> str:
        bad.append((row.number, f"{row.actual_columns} columns where the header has {row.expected_columns}"))
        return "error" if skipped is None else "skip"

    with _open(path) as file:
        header = pa.csv.open_csv(file, parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=lambda row: "skip"))
        mapping.check(header.schema.names, path)
    text = {name: pa.string() for name in mapping.texts}
    convert = pa.csv.ConvertOptions(include_columns=list(mapping.columns), column_types=text, strings_can_be_null=True,
                                    null_values=["", "NULL", "null"])
    parse = pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=invalid)
    with _open(path) as file:
        try:
            table = pa.csv.read_csv(file, pa.csv.ReadOptions(use_threads=False), parse, convert).combine_chunks()
        except pa.ArrowInvalid:
            if bad:
                raise NotAContainer(f"{path}: line {bad[0][0]}: {bad[0][1]}") from None
            raise
    if skipped is not None:
        skipped.rows = bad
        skipped.lines = _csv_lines(path, table.num_rows, {line for line, _ in bad})
    return table


def _csv_lines(path: Path, rows: int, bad: set[int]) -> list[int] | None:
    """The line of each row that was read, where every line is a row: without quoted line breaks or empty lines."""
    with _open(path) as file:
        lines = sum(1 for _ in file)
    return [line for line in range(2, lines + 1) if line not in bad] if lines == 1 + rows + len(bad) else None


def _json_lines(path: Path, mapping: Mapping, skipped: Skipped | None) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in mapping.columns}
    taken = list(columns.items())
    seen: dict[str, None] = {}
    lines: list[int] = []

    def refused(number: int, why: str) -> None:
        if skipped is None:
            raise ReadError(f"{path}: line {number}: {why}")
        skipped.rows.append((number, why))

    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                refused(number, f"no JSON: {error}")
                continue
            if not isinstance(row, dict):
                refused(number, "no JSON object")
                continue
            if len(seen) < 200:
                seen.update(dict.fromkeys(row))
            lines.append(number)
            for name, values in taken:
                values.append(row.get(name))
    if seen:
        mapping.check(seen, path)
    if skipped is None:
        return _table(columns, path)
    skipped.lines = lines
    return _lenient_table(columns, skipped)


def _avro(path: Path, mapping: Mapping, skipped: Skipped | None) -> pa.Table:
    names, rows = read_container(path)
    mapping.check(names, path)
    columns: dict[str, list[Any]] = {name: [] for name in mapping.columns}
    taken = list(columns.items())
    for row in rows:
        for name, values in taken:
            values.append(row.get(name))
    return _table(columns, path)


def _lenient_table(columns: dict[str, list[Any]], skipped: Skipped) -> pa.Table:
    """Without the rows whose value is of another kind than its column's first."""
    bad: dict[int, str] = {}
    for name, values in columns.items():
        try:
            pa.array(values)
        except (pa.ArrowException, TypeError):
            first, kinds = _kind(values)
            for row, value in enumerate(values):
                if value is not None and not isinstance(value, kinds):
                    bad.setdefault(row, f"column {name!r} is {value!r}, where earlier rows have {first!r}")
    assert skipped.lines is not None, "JSON lines have lines"
    skipped.rows += [(skipped.lines[row], why) for row, why in bad.items()]
    skipped.lines = [line for row, line in enumerate(skipped.lines) if row not in bad]
    return _table({name: [value for row, value in enumerate(values) if row not in bad] for name, values in columns.items()}, Path())


def _kind(values: list[Any]) -> tuple[Any, Any]:
    """The first value of a column that is not null, and the types that go with it."""
    first = next((value for value in values if value is not None), None)
    return first, (int, float) if isinstance(first, int | float) else type(first)


def _table(columns: dict[str, list[Any]], path: Path) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, TypeError):
            first, kinds = _kind(values)
            row = next((i for i, value in enumerate(values) if value is not None and not isinstance(value, kinds)), 0)
            raise ReadError(f"{path}: row {row}: column {name!r} is {values[row]!r}, where earlier rows have {first!r}") from None
    return pa.table(arrays)


def _open(path: Path):
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP
    return gzip.open(path, "rb") if zipped else path.open("rb")


READERS: dict[str, Callable[[Path, Mapping, Skipped | None], pa.Table]] = {
    "parquet": _parquet,
    "csv": _csv,
    "tsv": lambda path, mapping, skipped: _csv(path, mapping, skipped, "\t"),
    "json lines": _json_lines,
    "avro": _avro,
}


def _peek_parquet(path: Path, rows_max: int) -> pa.Table:
    with pa.parquet.ParquetFile(path) as file:
        return pa.Table.from_batches(list(itertools.islice(file.iter_batches(rows_max), 1)), file.schema_arrow)


def _peek_csv(path: Path, rows_max: int, delimiter: str = ",") -> pa.Table:
    parse = pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=lambda row: "skip")
    with _open(path) as file:
        reader, taken, rows = pa.csv.open_csv(file, pa.csv.ReadOptions(block_size=1 << 24), parse), [], 0
        for batch in reader:
            taken.append(batch)
            rows += batch.num_rows
            if rows >= rows_max:
                break
    return pa.Table.from_batches(taken, reader.schema)


def _peek_json_lines(path: Path, rows_max: int) -> pa.Table:
    rows: list[dict[str, Any]] = []
    with _open(path) as file:
        for line in itertools.islice(file, rows_max):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    return loose(rows)


def _peek_avro(path: Path, rows_max: int) -> pa.Table:
    _, rows = read_container(path)
    return loose(list(itertools.islice(rows, rows_max)))


def loose(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table; a column of several kinds of values has none."""
    arrays = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, TypeError):
            arrays[name] = pa.nulls(len(values))
    return pa.table(arrays)


PEEKS: dict[str, Callable[[Path, int], pa.Table]] = {
    "parquet": _peek_parquet,
    "csv": _peek_csv,
    "tsv": lambda path, rows_max: _peek_csv(path, rows_max, "\t"),
    "json lines": _peek_json_lines,
    "avro": _peek_avro,
}
