"""Samples as they come from Flink: what is wrong with which, and the good ones as a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.known_sets import KnownSets
from headrace.features.layout import NUMBERS
from headrace.models.batch import Batch
from headrace.models.inputs import Inputs

_CTR, _SHOWN = NUMBERS.index("item_ctr"), NUMBERS.index("user_impressions")


class Columns(NamedTuple):
    """label, weight float32[n]; of each sample its feature set, and its keys, values and numbers as packed bytes."""

    label: np.ndarray
    weight: np.ndarray
    feature_set: list[str]
    feature_keys: list[bytes]
    feature_values: list[bytes]
    numbers: list[bytes]


def of_now(columns: Columns, known: KnownSets) -> Columns:
    """Samples of feature sets from before as samples of the one held; the same columns when there are none, as nearly always."""
    older = [row for row, name in enumerate(columns.feature_set) if name in known]
    if not older:
        return columns
    made = columns._replace(feature_set=list(columns.feature_set), feature_keys=list(columns.feature_keys),
                            feature_values=list(columns.feature_values), numbers=list(columns.numbers))
    for row in older:
        held = made.feature_keys[row], made.feature_values[row], made.numbers[row]
        if tuple(map(len, held)) == known.width(made.feature_set[row]):
            made.feature_keys[row], made.feature_values[row], made.numbers[row] = known.packed(made.feature_set[row], *held)
            made.feature_set[row] = known.set.name
    return made


def wrong(columns: Columns, feature_set: FeatureSet = BASE) -> dict[int, tuple[str, str]]:
    """row -> (reason, sentence) of each sample that cannot be learnt on `feature_set`: foreign_sample, bad_sample."""
    held, widths_of = feature_set.name, [8 * feature_set.F, 4 * feature_set.F, 4 * feature_set.K]
    found: dict[int, tuple[str, str]] = {}
    for row, name in enumerate(columns.feature_set):
        if name != held:
            found[row] = ("foreign_sample", f"it carries feature set {name[:80]!r}, this job learns on {held!r}")
    widths = np.array([[len(one) for one in column] for column in columns[3:]]).reshape(3, -1)
    for row in np.nonzero((widths != [[one] for one in widths_of]).any(axis=0))[0].tolist():
        found.setdefault(row, ("bad_sample", f"its keys, values and numbers have {widths[:, row].tolist()} bytes,"
                                             f" {held} has {widths_of}"))
    rows = [row for row in range(len(columns.label)) if row not in found]
    for name, finite in _finite(columns, rows, feature_set).items():
        for at in np.nonzero(~finite)[0].tolist():
            found.setdefault(rows[at], ("bad_sample", f"its {name} is not finite"))
    return found


def taken(columns: Columns, rows: np.ndarray, inputs: Inputs, masked: Sequence[str] = ()) -> tuple[Batch, np.ndarray]:
    """The samples at `rows` int64[k], none of them wrong, as the model's `inputs`, `masked` features as their defaults, and the
    popularity baseline's probability float32[k] of each."""
    at = rows.tolist()
    numbers = [columns.numbers[row] for row in at]
    batch = inputs.batch([columns.feature_keys[row] for row in at], [columns.feature_values[row] for row in at], numbers,
                         columns.label[rows], columns.weight[rows], masked)
    return batch, _floats(numbers, len(inputs.numbers))[:, _CTR]


def shown(columns: Columns, rows: np.ndarray, inputs: Inputs) -> np.ndarray:
    """float32[k]: how many items each sample's user had been shown before, decayed."""
    return _floats([columns.numbers[row] for row in rows.tolist()], len(inputs.numbers))[:, _SHOWN]


def _finite(columns: Columns, rows: list[int], feature_set: FeatureSet) -> dict[str, np.ndarray]:
    """bool[k] of each column of `rows`, whose widths are right."""
    values = _floats([columns.feature_values[row] for row in rows], feature_set.F)
    numbers = _floats([columns.numbers[row] for row in rows], feature_set.K)
    return {"label": np.isfinite(columns.label[rows]), "weight": np.isfinite(columns.weight[rows]),
            "feature_values": np.isfinite(values).all(axis=1), "numbers": np.isfinite(numbers).all(axis=1)}


def _floats(data: list[bytes], width: int) -> np.ndarray:
    return np.frombuffer(b"".join(data), "<f4").reshape(len(data), width)
