"""Two lakes, sample by sample: which are in one alone, and which differ and in which columns.

A sample is the same by its cause (source, partition, offset) and target; between runs, whose topics differ, by event_id and target. Where
a record lay in its topic (at_...) is not compared, and by event its cause is not either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.lake.columns import AT, KEY

BY_EVENT = ("event_id", "target")


@dataclass
class Difference:
    """rows of each, and how many of them repeat a key (an event that a client sent twice), which are left out; how many are in one alone,
    and the first few; `columns`: of those in both, how many differ in a column; `examples`: keys of rows that differ, and in which."""

    rows: tuple[int, int]
    repeated: tuple[int, int]
    both: int
    only: tuple[int, int]
    differing: int
    columns: dict[str, int]
    only_first: list[dict[str, Any]] = field(default_factory=list)
    only_second: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not (any(self.only) or self.differing)


def compare(first: pa.Table, second: pa.Table, *, by_event: bool = False, ignore: Sequence[str] = (), examples: int = 5) -> Difference:
    """Of two tables as `read` gives them."""
    key = BY_EVENT if by_event else KEY
    (left, left_at), (right, right_at) = (np.unique(ids, return_index=True) for ids in _ids(first, second, key))
    _, at, to = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    alone = np.sort(np.delete(left_at, at)), np.sort(np.delete(right_at, to))
    order = np.argsort(left_at[at])  # examples are the first ones in the order of the rows
    at, to = left_at[at][order], right_at[to][order]
    aside = {*key, *AT, *ignore, *(KEY[:3] if by_event else ())}
    names = [name for name in dict.fromkeys([*first.column_names, *second.column_names]) if name not in aside]
    differs = {name: _differs(_column(first, second, name).take(at), _column(second, first, name).take(to)) for name in names}
    rows = np.nonzero(np.any([*differs.values(), np.zeros(len(at), bool)], axis=0))[0]
    shown = [{**row, "columns": [name for name, one in differs.items() if one[place]]}
             for place, row in zip(rows.tolist(), _keys(first, key, at[rows], examples), strict=False)]
    return Difference((len(first), len(second)), (len(first) - len(left), len(second) - len(right)), len(at),
                      (len(alone[0]), len(alone[1])), len(rows), {name: int(one.sum()) for name, one in differs.items() if one.any()},
                      _keys(first, key, alone[0], examples), _keys(second, key, alone[1], examples), shown)


def _column(table: pa.Table, other: pa.Table, name: str) -> pa.ChunkedArray:
    """Nulls where only the other table has it, being of a newer schema."""
    kind = other.schema.field(name).type if name in other.column_names else None
    return table[name] if name in table.column_names else pa.chunked_array([pa.nulls(len(table), kind)])


def _ids(first: pa.Table, second: pa.Table, key: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """int64[n] of each: equal where the key's columns are."""
    ids = np.zeros(len(first) + len(second), np.int64)
    for name in key:
        column = pa.chunked_array([*first[name].chunks, *second[name].chunks], first[name].type)
        codes = column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        ids = np.unique(ids * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1]
    return ids[: len(first)], ids[len(first) :]


def _differs(left: pa.ChunkedArray, right: pa.ChunkedArray) -> np.ndarray:
    """bool[n], of columns of n rows; NaN is equal to itself, and null to null."""
    one, two = left.combine_chunks(), right.combine_chunks()
    if pa.types.is_list(one.type):
        return _lists_differ(one, two)
    if pa.types.is_floating(one.type):
        one, two = (_bits(column) for column in (one, two))
    unlike = pc.fill_null(pc.not_equal(one, two), False)
    return pc.or_(unlike, pc.xor(pc.is_null(one), pc.is_null(two))).to_numpy(zero_copy_only=False)


def _bits(column: pa.Array) -> pa.Array:
    kind = pa.int64() if column.type.bit_width == 64 else pa.int32()
    return column.view(kind)


def _lists_differ(one: pa.ListArray, two: pa.ListArray) -> np.ndarray:
    lengths, others = (pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False) for column in (one, two))
    differs = lengths != others
    same = np.nonzero(~differs)[0]
    values = [column.take(pa.array(same)).flatten() for column in (one, two)]
    unlike = _differs(*(pa.chunked_array([value]) for value in values))
    differs[np.repeat(same, np.maximum(lengths[same], 0))[unlike]] = True
    return differs


def _keys(table: pa.Table, key: Sequence[str], at: np.ndarray, most: int) -> list[dict[str, Any]]:
    return table.select(list(dict.fromkeys([*key, "event_id"]))).take(pa.array(at[:most])).to_pylist()
