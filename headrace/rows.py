"""The rows of a file as they will be sent: in time order, checked, features as text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.mapping import Mapping
from headrace.readers import ReadError, read
from headrace.schemas.interaction import TS_MS_MAX, TS_MS_MIN


@dataclass(frozen=True)
class Rows:
    """n rows in time order, ties by row order.

    digest: 8 hex digits of the file's sha256. row int64[n] (in the file, from 0), ts_ms int64[n], label bool[n], user and item
    string[n]; features: context key -> string[n], null where the row has no value, several values split by |.
    """

    digest: str
    action: str
    row: np.ndarray
    ts_ms: np.ndarray
    label: np.ndarray
    user: pa.Array
    item: pa.Array
    features: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def positives(self) -> int:
        return int(self.label.sum())

    def first(self, limit: int) -> Rows:
        """The first `limit` rows in time order."""
        return replace(
            self, row=self.row[:limit], ts_ms=self.ts_ms[:limit], label=self.label[:limit], user=self.user.slice(0, limit),
            item=self.item.slice(0, limit), features={key: column.slice(0, limit) for key, column in self.features.items()},
        )

    def shuffled(self, seed: int) -> Rows:
        """The same rows with their labels permuted: the control in which nothing can be learnt."""
        return replace(self, label=np.random.default_rng(seed).permutation(self.label))


def load(path: str | Path, mapping: Mapping) -> Rows:
    """The rows of `path` under `mapping`. Raises ReadError, MappingError."""
    table = read(path, mapping)
    ts_ms = _times_ms(table[mapping.ts].combine_chunks(), mapping, path)
    label = mapping.label.of(_numbers(table[mapping.label.column].combine_chunks(), mapping.label.column, path))
    order = np.argsort(ts_ms, kind="stable")
    take = pa.array(order)
    for name in (mapping.user_id, mapping.item_id):
        _filled(_whole(table[name]), name, path)
    features = {}
    for key, (name, separator) in mapping.features.items():
        column = _whole(table[name])
        if separator not in (None, "|"):
            column = pc.replace_substring(column, separator, "|")
        features[key] = column.take(take)
    return Rows(
        digest=digest(path), action=mapping.action, row=order.astype(np.int64), ts_ms=ts_ms[order], label=label[order],
        user=_whole(table[mapping.user_id]).take(take), item=_whole(table[mapping.item_id]).take(take), features=features,
    )


def digest(path: str | Path) -> str:
    """8 hex digits of the sha256 of a file: what makes its event ids its own."""
    whole = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()[:8]


def _times_ms(column: pa.Array, mapping: Mapping, path: str | Path) -> np.ndarray:
    """int64[n] milliseconds; a column of timestamps knows its unit, numbers are in the mapping's."""
    column = _whole(column)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        numbers = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
        factor = 1
    else:
        numbers, factor = column, 1000 if mapping.time_unit == "s" else 1
    if pa.types.is_integer(numbers.type):
        _no_null(numbers, mapping.ts, path)
        values = numbers.cast(pa.int64()).to_numpy(zero_copy_only=False)
    else:
        values = _numbers(numbers, mapping.ts, path)
    bad = np.flatnonzero(~((values >= TS_MS_MIN // factor) & (values <= TS_MS_MAX // factor)))
    if len(bad):
        row = int(bad[0])
        what = f"{values[row]}, which is no time between 1990 and 2100 in {mapping.time_unit}"
        raise ReadError(f"{path}: row {row}: column {mapping.ts!r} is {what}")
    return np.floor(values * factor).astype(np.int64) if values.dtype.kind == "f" else values * factor


def _numbers(column: pa.Array, name: str, path: str | Path) -> np.ndarray:
    """float64[n]; NaN for null. Raises ReadError at the first text that is no number."""
    column = _whole(column)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ReadError(f"{path}: column {name!r} is of type {column.type}, not of numbers")
    values = np.empty(len(column))
    for row, text in enumerate(column.to_pylist()):
        try:
            values[row] = np.nan if text is None else float(text)
        except ValueError:
            raise ReadError(f"{path}: row {row}: column {name!r} is {text!r}, which is no number") from None
    return values


def _filled(column: pa.Array, name: str, path: str | Path) -> None:
    _no_null(column, name, path)
    empty = np.flatnonzero(pc.equal(pc.binary_length(column), 0).to_numpy(zero_copy_only=False))
    if len(empty):
        raise ReadError(f"{path}: row {empty[0]}: column {name!r} is empty")


def _no_null(column: pa.Array, name: str, path: str | Path) -> None:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise ReadError(f"{path}: row {row}: column {name!r} is null")


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array, without a dictionary."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
