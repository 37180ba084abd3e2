"""Samples as they come from Flink: what is wrong with which, and the good ones as a batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.features.layout import FEATURE_SET, NUMBERS, F, K
from headrace.models.batch import Batch, from_bytes

_CTR = NUMBERS.index("item_ctr")


class Columns(NamedTuple):
    """label, weight float32[n]; of each sample its feature set, and its keys, values and numbers as packed bytes."""

    label: np.ndarray
    weight: np.ndarray
    feature_set: list[str]
    feature_keys: list[bytes]
    feature_values: list[bytes]
    numbers: list[bytes]


def wrong(columns: Columns) -> dict[int, tuple[str, str]]:
    """row -> (reason, sentence) of each sample that cannot be learnt: foreign_sample, bad_sample."""
    found: dict[int, tuple[str, str]] = {}
    for row, name in enumerate(columns.feature_set):
        if name != FEATURE_SET:
            found[row] = ("foreign_sample", f"it carries feature set {name[:80]!r}, this job learns on {FEATURE_SET!r}")
    widths = np.array([[len(one) for one in column] for column in columns[3:]]).reshape(3, -1)
    for row in np.nonzero((widths != [[8 * F], [4 * F], [4 * K]]).any(axis=0))[0].tolist():
        found.setdefault(row, ("bad_sample", f"its keys, values and numbers have {widths[:, row].tolist()} bytes,"
                                             f" {FEATURE_SET} has {[8 * F, 4 * F, 4 * K]}"))
    rows = [row for row in range(len(columns.label)) if row not in found]
    for name, finite in _finite(columns, rows).items():
        for at in np.nonzero(~finite)[0].tolist():
            found.setdefault(rows[at], ("bad_sample", f"its {name} is not finite"))
    return found


def taken(columns: Columns, rows: np.ndarray) -> tuple[Batch, np.ndarray]:
    """The samples at `rows` int64[k], none of them wrong, and the popularity baseline's probability float32[k] of each."""
    at = rows.tolist()
    batch = from_bytes([columns.feature_keys[row] for row in at], [columns.feature_values[row] for row in at], F, columns.label[rows],
                       columns.weight[rows])
    return batch, _floats([columns.numbers[row] for row in at], K)[:, _CTR]


def _finite(columns: Columns, rows: list[int]) -> dict[str, np.ndarray]:
    """bool[k] of each column of `rows`, whose widths are right."""
    values = _floats([columns.feature_values[row] for row in rows], F)
    numbers = _floats([columns.numbers[row] for row in rows], K)
    return {"label": np.isfinite(columns.label[rows]), "weight": np.isfinite(columns.weight[rows]),
            "feature_values": np.isfinite(values).all(axis=1), "numbers": np.isfinite(numbers).all(axis=1)}


def _floats(data: list[bytes], width: int) -> np.ndarray:
    return np.frombuffer(b"".join(data), "<f4").reshape(len(data), width)
