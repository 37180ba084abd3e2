"""Mapped columns as what an interaction takes: ids and features as text, times in milliseconds, numbers to compare; and what is wrong with
their values.

Columns are Arrow arrays of one type, whoever made them: a file's whole column (headrace/rows.py), or those values of a batch of records
that are of one kind (streaming/ingest_rows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.schemas.interaction import TS_MS_MAX, TS_MS_MIN
from headrace.schemas.mapping import UNITS

Record = dict[str, Any]
NULL, EMPTY, NO_TIME, NO_NUMBER = "is null", "is empty", "is no time", "is no number"


class WrongKind(Exception):
    """A column of this type cannot be what it is mapped as; the message ends a sentence that names the column."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with `rows` int64[k] of a file, k > 0, in `column`; `what(row)` says it of one of them; `reason` is for counting."""

    reason: str
    column: str
    rows: np.ndarray
    what: Callable[[int], str]

    def said(self, row: int) -> str:
        return f"column {self.column!r} {self.what(row)}"


def found(faults: list[Fault], reason: str, name: str, where: Any, what: Callable[[int], str] | None = None) -> None:
    """Add a fault for the rows `where` bool[n] says so, when there is one; a null says no."""
    mask = where if isinstance(where, np.ndarray) else where.fill_null(False).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(mask)
    if len(rows):
        faults.append(Fault(reason, name, rows, what or (lambda row: reason)))


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array, without a dictionary."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def as_text(column: pa.Array | pa.ChunkedArray, separator: str) -> pa.Array:
    """`column` as strings; a list becomes its values joined by the separator. Raises WrongKind."""
    array = whole(column)
    try:
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            return pc.binary_join(array.cast(pa.list_(pa.string())), separator)
        return array.cast(pa.string())
    except pa.ArrowException as error:
        raise WrongKind(f"of type {array.type} cannot be sent as text: {error}") from None


def check_id(array: pa.Array, name: str, faults: list[Fault]) -> None:
    """Tell of nulls and empty texts among string[n]."""
    found(faults, NULL, name, array.is_null())
    found(faults, EMPTY, name, pc.equal(pc.binary_length(array), 0))


def times_ms(array: pa.Array, name: str, time_unit: str, faults: list[Fault]) -> np.ndarray:
    """int64[n] milliseconds, 0 where it is no time; timestamps and texts of ISO 8601 know their unit, numbers are in `time_unit`, one of
    mapping.UNITS. Raises WrongKind."""
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    if not pa.types.is_null(array.type):
        found(faults, NULL, name, array.is_null())
    if pa.types.is_timestamp(array.type):
        numbers, unit = array.cast(pa.timestamp("ms", array.type.tz), safe=False).cast(pa.int64()), "ms"
    elif (iso := _iso_ms(array)) is not None:
        numbers, unit = pa.array(iso, pa.int64()), "ms"
        found(faults, NO_TIME, name, pc.and_(pc.is_null(numbers), pc.is_valid(array)),
              lambda row: f"is {array[row].as_py()!r}, which is no time of ISO 8601")
    else:
        numbers, unit = array, time_unit
    if pa.types.is_integer(numbers.type):
        values = numbers.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    else:
        values = numbers_of(array, name, faults)
    per_ms = UNITS[unit]
    outside = ~((values >= TS_MS_MIN / per_ms) & (values <= TS_MS_MAX / per_ms))
    told = np.zeros(len(values), bool)
    for fault in faults:
        told[fault.rows] = True
    found(faults, NO_TIME, name, outside & ~told, lambda row: f"is {values[row]}, which is no time between 1990 and 2100 in {unit}")
    return _in_ms(np.where(outside, 0, values), per_ms)


def _in_ms(values: np.ndarray, per_ms: float) -> np.ndarray:
    """Whole milliseconds, rounded down."""
    if values.dtype.kind == "f":
        return np.floor(values * per_ms).astype(np.int64)
    return values * int(per_ms) if per_ms >= 1 else values // round(1 / per_ms)


def _iso_ms(array: pa.Array) -> list[int | None] | None:
    """Milliseconds of texts of ISO 8601, UTC unless they say otherwise, None where one is none; None when the first text is a number."""
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return None
    first = next((one for one in array.to_pylist() if one is not None), None)
    if first is None or number(first) is not None:
        return None
    return [None if one is None else _iso(one) for one in array.to_pylist()]


def _iso(one: str) -> int | None:
    try:
        time = datetime.fromisoformat(one.strip().replace("Z", "+00:00"))
        return int((time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def number(one: str) -> float | None:
    """What a text says, None when that is no number."""
    try:
        return float(one)
    except ValueError:
        return None


def numbers_of(array: pa.Array, name: str, faults: list[Fault]) -> np.ndarray:
    """float64[n]; NaN for null and for what is no number. Raises WrongKind for a column that can hold none."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if pa.types.is_decimal(array.type) or pa.types.is_null(array.type):
        array = array.cast(pa.float64())
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise WrongKind(f"is of type {array.type}, not of numbers")
    texts = array.to_pylist()
    numbers = [None if one is None else number(one) for one in texts]
    bad = [value is None and one is not None for value, one in zip(numbers, texts, strict=True)]
    found(faults, NO_NUMBER, name, np.array(bad, bool), lambda row: f"is {texts[row]!r}, which is no number")
    return np.array([np.nan if value is None else value for value in numbers])


def features(columns: dict[str, pa.Array], mapped: dict[str, tuple[str, str | None]]) -> dict[str, pa.Array]:
    """Context key -> string[n], its values split by |: `columns` by name, `mapped` as Mapping.features."""
    made = {}
    for key, (name, separator) in mapped.items():
        column = columns[name]
        made[key] = column if separator in (None, "|") else pc.replace_substring(column, separator, "|")
    return made


def contexts(columns: dict[str, pa.Array], n: int) -> Iterator[dict[str, str]]:
    """One dict a row of string[n] by key; a null value leaves its key out."""
    if not columns:
        return ({} for _ in range(n))
    names = tuple(columns)
    values = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    if any(column.null_count for column in columns.values()):
        return ({name: value for name, value in zip(names, row, strict=True) if value is not None} for row in values)
    return (dict(zip(names, row, strict=True)) for row in values)


def exposures(names: Sequence[str], ts_ms: Sequence[int], labels: Sequence[bool], users: Sequence[str], items: Sequence[str],
              made: Iterator[dict[str, str]], action: str) -> Iterator[tuple[bytes, Record, Record | None]]:
    """Of each row: the key, the impression, and the `action` or None. `names`: of a row for good, its request_id and what its event ids
    begin with. Both records share one context: a sink must not change it.

    A row is a request of its own: sent faster than it happened, an item that a user met twice lies within one window, or one millisecond.
    """
    for name, at, label, user, item, context in zip(names, ts_ms, labels, users, items, made, strict=True):
        impression = record(f"{name}-i", name, user, item, "impression", at, context)
        yield user.encode(), impression, {**impression, "event_id": f"{name}-a", "action": action} if label else None


def single(names: Sequence[str], requests: Sequence[str | None], ts_ms: Sequence[int], actions: Sequence[str], users: Sequence[str],
           items: Sequence[str], made: Iterator[dict[str, str]]) -> Iterator[tuple[bytes, Record, None]]:
    """Of each row that is one event: the key and the event; `names` as of `exposures`. Its request, when there is one, is the user's."""
    for name, request, at, action, user, item, context in zip(names, requests, ts_ms, actions, users, items, made, strict=True):
        yield user.encode(), record(f"{name}-e", request or None, user, item, action, at, context), None


def record(event_id: str, request_id: str | None, user: str, item: str, action: str, ts_ms: int, context: dict[str, str]) -> Record:
    """An interaction that no engine served."""
    return {"event_id": event_id, "request_id": request_id, "scene": "", "user_id": user, "item_id": item, "action": action, "value": 1.0,
            "position": None, "ts_ms": ts_ms, "context": context, "exposure": None}
