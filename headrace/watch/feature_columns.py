"""The features of exposures by name: where the values of each lie in a sample, and what is expected of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.features import layout
from headrace.features.bounds import Bounds
from headrace.features.definitions import Definition
from headrace.features.feature_set import FeatureSet
from headrace.features.masks import NEVER

NUMBER, VALUE, IDS = "number", "value", "ids"
RANGE, NULL, DEFAULT, DRIFT, STALE = BROKEN = ("range", "null_rate", "default_rate", "psi", "stale")
"""Bounds that a feature can be beyond."""
_VALUES = (layout.USER_LIFT, layout.USER_STREAK, layout.USER_RECENCY, layout.ITEM_LIFT)  # slots of one key, and a value
_GROW = ("count", "sum", "distinct", "first_time")


class Column(NamedTuple):
    """`kind`: NUMBER of the sample's numbers, VALUE of a slot, IDS of slots; `places` of the numbers or slots. `blank` is its default.
    `drifts`: its distribution stands still while the world does. `place`: index of its definition, -1 of a built-in feature, which has
    figures and no bounds."""

    name: str
    kind: str
    places: tuple[int, ...]
    blank: float
    bounds: Bounds
    drifts: bool
    place: int
    identity: str = ""

    def said(self) -> tuple[str, str, float]:
        """What a reference of it depends on."""
        return self.identity, self.kind, self.blank


def columns_of(feature_set: FeatureSet) -> list[Column]:
    """Definitions first, then built-in numbers and slots."""
    found, slot, number = [], layout.F, layout.K
    for d, one in enumerate(feature_set.definitions):
        width = int(feature_set.width[d])
        places = tuple(range(slot, slot + width)) if width else (number,)
        slot, number = slot + width, number + (not width)
        found.append(Column(one.name_in(feature_set.definitions), IDS if width else NUMBER, places, one.blank, one.bounds, _stands(one), d,
                            one.identity))
    found += [Column(name, NUMBER, (place,), 0.0, Bounds(), False, -1) for place, name in enumerate(layout.NUMBERS)]
    for place, name in enumerate(layout.SLOTS):
        if name not in NEVER:
            found.append(Column(name, VALUE if place in _VALUES else IDS, (place,), 0.0, Bounds(), False, -1))
    return found


def values_of(column: Column, keys: np.ndarray, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """float32[n] of a column that is none of ids."""
    return numbers[:, column.places[0]] if column.kind == NUMBER else values[:, column.places[0]]


def _stands(one: Definition) -> bool:
    """What counts for ever grows with the log: no distribution of it stands."""
    return one.reducer not in _GROW or bool(one.window_ms or one.half_life_ms)
