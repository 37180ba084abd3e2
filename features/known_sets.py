"""Samples of feature sets from before, made samples of the one that is held now: what is on its way when definitions are added is not lost.

A set is known by its name, and its slots and numbers by theirs with their versions: those that both have are taken over, those that only
the older had go, those that only the newer has are blank, as they were in its rows then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headrace.features.feature_set import FeatureSet


class Layout(NamedTuple):
    """Of samples of the set `name`: slots and numbers in their order, under FeatureSet's layout_slots and layout_numbers."""

    name: str
    slots: tuple[str, ...]
    numbers: tuple[str, ...]


class KnownSets:
    """`layouts` of sets from before, against `feature_set`."""

    def __init__(self, feature_set: FeatureSet, layouts: Sequence[Layout] = ()) -> None:
        self.set = feature_set
        self._layouts = {one.name: one for one in layouts if one.name != feature_set.name}

    def __contains__(self, name: object) -> bool:
        return name in self._layouts

    def width(self, name: str) -> tuple[int, int, int]:
        """Bytes of keys, values and numbers of a sample of a set from before."""
        layout = self._layouts[name]
        return 8 * len(layout.slots), 4 * len(layout.slots), 4 * len(layout.numbers)

    def now(self, name: str, keys: np.ndarray, values: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples of the set `name`, one from before, as samples of the set held: keys uint64[n,F], values float32[n,F], numbers
        float32[n,K]."""
        layout, n = self._layouts[name], len(keys)
        made = (np.tile(self.set.empty_keys, (n, 1)), np.zeros((n, self.set.F), np.float32), np.tile(self.set.blank_numbers, (n, 1)))
        to, of = _shared(self.set.layout_slots, layout.slots)
        made[0][:, to], made[1][:, to] = keys[:, of], values[:, of]
        to, of = _shared(self.set.layout_numbers, layout.numbers)
        made[2][:, to] = numbers[:, of]
        return made

    def packed(self, name: str, keys: bytes, values: bytes, numbers: bytes) -> tuple[bytes, bytes, bytes]:
        """`now` of one sample as it travels; the caller has seen that its widths are right."""
        arrays = (np.frombuffer(data, kind).reshape(1, -1) for data, kind in ((keys, "<u8"), (values, "<f4"), (numbers, "<f4")))
        made_keys, made_values, made_numbers = self.now(name, *arrays)
        return (made_keys.astype("<u8").tobytes(), made_values.astype("<f4").tobytes(), made_numbers.astype("<f4").tobytes())


def _shared(mine: Sequence[str], theirs: Sequence[str]) -> tuple[list[int], list[int]]:
    """(places in mine, places in theirs) of the names that both have."""
    pairs = [(place, theirs.index(name)) for place, name in enumerate(mine) if name in theirs]
    return [to for to, _ in pairs], [of for _, of in pairs]
