"""Labels in files: .csv, .jsonl or .parquet with the columns of schemas/labels.avsc."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.labels.label import COLUMNS, Label, LabelError, label_of

KINDS = (".csv", ".jsonl", ".parquet")
SCHEMA = pa.schema([("item_id", pa.string()), ("user_id", pa.string()), ("target", pa.string()), ("label", pa.float64()),
                    ("labeller", pa.string()), ("ts_ms", pa.int64())])


def read(path: Path, now_ms: int, target: str | None = None, labeller: str | None = None) -> list[Label]:
    """All labels of a file, or none: raises LabelError, which names the line (the row of a .parquet) of the first that is wrong."""
    made = []
    for place, row in _rows(path):
        try:
            made.append(label_of(row, now_ms, target, labeller))
        except LabelError as error:
            raise LabelError(f"{path}, {place}: {error}; nothing was taken of this file") from None
    if not made:
        raise LabelError(f"{path} holds no label")
    return made


def write(path: Path, labels: Iterable[Label]) -> int:
    """Write a file whole or not at all; how many labels. Raises LabelError for another ending, OSError."""
    rows = [one.record() for one in labels]
    if path.suffix not in KINDS:
        raise LabelError(f"{path}: cannot tell what to write; name it FILE{', FILE'.join(KINDS)}")
    fresh = path.with_name(f".{path.name}.new")
    try:
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), fresh)
        else:
            with open(fresh, "w", encoding="utf-8", newline="") as file:
                if path.suffix == ".csv":
                    writer = csv.DictWriter(file, COLUMNS)
                    writer.writeheader()
                    writer.writerows(rows)
                else:
                    file.writelines(json.dumps(row) + "\n" for row in rows)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return len(rows)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row). Raises LabelError, OSError."""
    if path.suffix == ".parquet":
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise LabelError(f"{path} is no Parquet file: {error}") from None
        yield from ((f"row {number}", row) for number, row in enumerate(table.to_pylist()))
    elif path.suffix in (".csv", ".jsonl"):
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                yield from _csv(path, file) if path.suffix == ".csv" else _json(path, file)
        except UnicodeDecodeError as error:
            raise LabelError(f"{path} is no UTF-8: {error}") from None
    else:
        raise LabelError(f"{path}: cannot tell what it is; name it FILE{', FILE'.join(KINDS)}")


def _csv(path: Path, file: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(file, strict=True)
    try:
        for row in reader:
            if None in row:
                raise LabelError(f"{path}, line {reader.line_num}: more cells than the header has names")
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise LabelError(f"{path}, line {reader.line_num}: {error}") from None


def _json(path: Path, file: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LabelError(f"{path}, line {number}: no JSON: {error}") from None
        if not isinstance(row, dict):
            raise LabelError(f"{path}, line {number}: no JSON object")
        yield f"line {number}", row
