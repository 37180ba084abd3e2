"""The rows of a file as they will be sent: in time order, checked, features as text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.readers import ReadError, Skipped, read
from headrace.schemas.mapped import Fault, WrongKind, check_id, features, numbers_of, times_ms, whole
from headrace.schemas.mapping import Mapping


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


@dataclass
class Checked:
    """A file's mapped columns, checked and not yet in time order: ts_ms int64[n], label bool[n], the table; `faults` as they were found."""

    table: pa.Table
    ts_ms: np.ndarray
    label: np.ndarray
    faults: list[Fault] = field(default_factory=list)


def checked(path: str | Path, mapping: Mapping, skipped: Skipped | None = None) -> Checked:
    """The columns of `path` and what is wrong with them. Raises ReadError for what no row can be read of, MappingError."""
    table, faults = read(path, mapping, skipped), list[Fault]()
    name = mapping.ts
    try:
        ts_ms = times_ms(whole(table[name]), name, mapping.time_unit, faults)
        name = mapping.label.column
        label = mapping.label.of(numbers_of(whole(table[name]), name, faults))
    except WrongKind as error:
        raise ReadError(f"{path}: column {name!r} {error}") from None
    for name in (mapping.user_id, mapping.item_id):
        check_id(whole(table[name]), name, faults)
    return Checked(table, ts_ms, label, faults)


def load(path: str | Path, mapping: Mapping) -> Rows:
    """The rows of `path` under `mapping`. Raises ReadError, MappingError."""
    found = checked(path, mapping)
    for fault in found.faults:
        row = int(fault.rows[0])
        raise ReadError(f"{path}: row {row}: {fault.said(row)}")
    return in_order(found, mapping, path)


def in_order(found: Checked, mapping: Mapping, path: str | Path, keep: np.ndarray | None = None) -> Rows:
    """The rows of `found` in time order; only those of `keep` bool[n]."""
    order = np.argsort(found.ts_ms, kind="stable")
    if keep is not None:
        order = order[keep[order]]
    take = pa.array(order)
    columns = {name: whole(found.table[name]).take(take) for name in mapping.texts}
    return Rows(
        digest=digest(path), action=mapping.action, row=order.astype(np.int64), ts_ms=found.ts_ms[order], label=found.label[order],
        user=columns[mapping.user_id], item=columns[mapping.item_id], features=features(columns, mapping.features),
    )


def digest(path: str | Path) -> str:
    """8 hex digits of the sha256 of a file: what makes its event ids its own."""
    whole = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()[:8]
