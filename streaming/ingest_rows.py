"""Rows of a topic as interactions, under the same mapping and by the same columns (schemas/mapped.py) as rows of a file.

A record becomes what a file of that one row would: values are grouped by their kind, so that a whole batch is worked on as columns and
still no record's meaning hangs on its neighbours, which are others after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.schemas import mapped
from headrace.schemas.errors import Malformed
from headrace.schemas.interaction import check_interaction
from headrace.schemas.mapped import Fault, Record, WrongKind
from headrace.schemas.mapping import Mapping
from headrace.streaming.unwrap import values_of

REASON = {mapped.NULL: "missing_field", mapped.EMPTY: "empty_id", mapped.NO_TIME: "bad_ts", mapped.NO_NUMBER: "bad_type"}
_WRONG = (WrongKind, pa.ArrowException, OverflowError, TypeError, ValueError)
Exposure = tuple[bytes, Record, Record | None]


@dataclass
class Made:
    """`exposures` (key, impression, action or None) of the rows `at` int[k], ascending, or (key, event, None); `refused` rows with reasons;
    `aside`: how many events the mapping leaves out, by their name."""

    exposures: list[Exposure] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    refused: list[tuple[int, Malformed]] = field(default_factory=list)
    aside: Counter[str] = field(default_factory=Counter)


class IngestRows:
    """Makes interactions of rows by `mapping`."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._separators = {name: separator for name, separator in mapping.features.values() if separator}

    def make(self, rows: list[dict[str, Any]], names: list[str]) -> Made:
        """`names[i]` names row i for good: its request_id, and what its event ids begin with."""
        mapping, refused = self._mapping, dict[int, Malformed]()
        columns = {name: self._text(values_of(rows, name), name, refused) for name in mapping.texts}
        faults: list[Fault] = []
        ts_ms = _by_kind(values_of(rows, mapping.ts), mapping.ts, np.int64, faults, refused,
                         lambda array, into: mapped.times_ms(array, mapping.ts, mapping.time_unit, into))
        column = mapping.label.column
        label = np.zeros(len(rows), bool) if mapping.events is not None else mapping.label.of(_by_kind(
            values_of(rows, column), column, np.float64, faults, refused, lambda array, into: mapped.numbers_of(array, column, into)))
        for name in (mapping.user_id, mapping.item_id):
            mapped.check_id(columns[name], name, faults)
        for fault in faults:
            for row in fault.rows.tolist():
                refused.setdefault(row, Malformed(REASON[fault.reason], fault.said(row)[:400]))
        actions, aside = self._actions(columns, refused)
        good = np.array([row for row in range(len(rows)) if row not in refused and actions[row] != ""], np.int64)
        made = self._checked(columns, ts_ms, label, names, actions, good, refused)
        made.aside = aside
        made.refused = sorted(refused.items())
        return made

    def _actions(self, columns: dict[str, pa.Array], refused: dict[int, Malformed]) -> tuple[list[str], Counter[str]]:
        """The action of each row, "" for one left aside; where a row is an exposure with its label, what a true one is called."""
        events, aside = self._mapping.events, Counter[str]()
        if events is None:
            return [self._mapping.action] * len(columns[self._mapping.user_id]), aside
        actions = []
        for row, name in enumerate(columns[events.column].to_pylist()):
            action = events.of(name) if name is not None else None
            if action is None:
                detail = f"column {events.column!r} is {'null' if name is None else repr(name[:80]) + ', which [events] does not name'}"
                refused.setdefault(row, Malformed("missing_field" if name is None else "bad_action", detail))
            elif action == "":
                refused.pop(row, None)  # whatever else it says
                aside[name] += 1
            actions.append(action or "")
        return actions, aside

    def _checked(self, columns: dict[str, pa.Array], ts_ms: np.ndarray, label: np.ndarray, names: list[str], actions: list[str],
                 good: np.ndarray, refused: dict[int, Malformed]) -> Made:
        """Exposures of the rows `good` int64[k] that are interactions by schemas/interaction.py; others are added to `refused`."""
        mapping, made = self._mapping, Made()
        if len(good) < len(names):
            take = pa.array(good)
            columns = {name: column.take(take) for name, column in columns.items()}
            ts_ms, label = ts_ms[good], label[good]
            names, actions = [names[row] for row in good.tolist()], [actions[row] for row in good.tolist()]
        contexts = mapped.contexts(mapped.features(columns, mapping.features), len(good))
        users, items = columns[mapping.user_id].to_pylist(), columns[mapping.item_id].to_pylist()
        if mapping.events is None:
            found = mapped.exposures(names, ts_ms.tolist(), label.tolist(), users, items, contexts, mapping.action)
        else:
            shared = mapping.events.request_id
            requests = columns[shared].to_pylist() if shared else [None] * len(names)
            found = mapped.single(names, requests, ts_ms.tolist(), actions, users, items, contexts)
        for row, exposure in zip(good.tolist(), found, strict=True):
            try:
                check_interaction(exposure[2] or exposure[1])
            except Malformed as error:
                refused[row] = error
                continue
            made.exposures.append(exposure)
            made.at.append(row)
        return made

    def _text(self, values: list[Any], name: str, refused: dict[int, Malformed]) -> pa.Array:
        """string[n] of a field; null where it has none or cannot be one."""
        separator = self._separators.get(name, "|")
        kinds = _kinds(values)
        if not kinds or set(kinds) == {str}:
            try:
                return pa.array(values, pa.string())
            except pa.ArrowException:  # half of a surrogate pair
                pass
        out: list[str | None] = [None] * len(values)
        for rows in kinds.values():
            for part, array in _arrays(values, rows, name, refused, lambda array: mapped.as_text(array, separator)):
                for row, one in zip(part, array.to_pylist(), strict=True):
                    out[row] = one
        return pa.array(out, pa.string())


def _kinds(values: list[Any]) -> dict[Any, list[int]]:
    """Rows by the kind of their value, those of one kind making one type of column; nulls in none."""
    types = set(map(type, values))
    if types in ({str}, {int}, {float}):
        return {next(iter(types)): list(range(len(values)))}
    found: dict[Any, list[int]] = {}
    for row, value in enumerate(values):
        if value is not None:
            found.setdefault(_kind(value), []).append(row)
    return found


def _kind(value: Any) -> Any:
    if isinstance(value, list):
        return list, frozenset(map(_kind, value))
    if isinstance(value, datetime):
        return datetime, value.tzinfo is None
    if isinstance(value, Decimal):
        return Decimal, value.as_tuple().exponent
    return type(value)


def _arrays(values: list[Any], rows: list[int], name: str, refused: dict[int, Malformed], work: Callable[[pa.Array], Any]
            ) -> list[tuple[list[int], Any]]:
    """`work` of the values at `rows` as one column, or where that fails of each alone; those that fail alone are refused."""
    try:
        return [(rows, work(pa.array([values[row] for row in rows])))]
    except _WRONG as error:
        if len(rows) > 1:
            return [made for row in rows for made in _arrays(values, [row], name, refused, work)]
        said = str(error) if isinstance(error, WrongKind) else f"cannot be used: {type(error).__name__}: {error}"
        refused.setdefault(rows[0], Malformed("bad_type", f"column {name!r} is {repr(values[rows[0]])[:80]}: {said}"[:400]))
        return []


def _by_kind(values: list[Any], name: str, dtype: type[np.generic], faults: list[Fault], refused: dict[int, Malformed],
             work: Callable[[pa.Array, list[Fault]], np.ndarray]) -> np.ndarray:
    """`work` done kind by kind: dtype[n]; nulls are one kind, texts that are numbers and others two. `faults` name rows of `values`."""
    kinds = _kinds(values)
    if str in kinds:
        numeric = [row for row in kinds[str] if mapped.number(values[row]) is not None]
        if numeric and len(numeric) < len(kinds[str]):
            known = set(numeric)
            kinds["numeric"], kinds[str] = numeric, [row for row in kinds[str] if row not in known]
    if sum(map(len, kinds.values())) < len(values):
        kinds[None] = [row for row, value in enumerate(values) if value is None]
    out = np.zeros(len(values), dtype)

    def column(array: pa.Array) -> tuple[np.ndarray, list[Fault]]:
        into: list[Fault] = []
        return work(array.cast(pa.int64()) if pa.types.is_null(array.type) else array, into), into

    for rows in kinds.values():
        for part, (answer, into) in _arrays(values, rows, name, refused, column):
            out[part] = answer
            faults += [_moved(fault, part) for fault in into]
    return out


def _moved(fault: Fault, rows: list[int]) -> Fault:
    """The fault of a column that was made of `rows`, told by their own numbers."""
    own = {row: at for at, row in enumerate(rows)}
    return Fault(fault.reason, fault.column, np.array(rows, np.int64)[fault.rows], lambda row: fault.what(own[row]))
