"""What the definitions of a feature set take of scanned interactions; features.inputs.of_records does the same of decoded ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.features.definitions import COLUMNS
from headrace.features.feature_set import VALUES, FeatureSet
from headrace.features.inputs import Inputs, Records, columns_of, number, take
from headrace.schemas.kernels import ACTION, SCENE
from headrace.streaming import set_kernels
from headrace.streaming.scanned import Scanned

_ROOM = 1 << 10
_SCENE = np.frombuffer(b"scene=", np.uint8).copy()
_NOTHING = np.zeros(0, np.uint8)


class SetColumns:
    """Of `feature_set`. `tell(names)` is called with the names of ids that functions made. `decode(rows)` gives the decoded events of a
    scan's rows int64[k], for functions."""

    def __init__(self, feature_set: FeatureSet, tell: Callable[[list[str]], object]) -> None:
        self.set, self._tell = feature_set, tell
        self._fields = [name.removeprefix("context.") for name in feature_set.columns]
        self._names, self._ends = set_kernels.bytes_of(self._fields)
        self._several = np.array([not name.startswith("context.") for name in feature_set.columns], bool)
        values = {one.value for one in feature_set.all if one.kind.takes in ("number", "ratio")}
        self._numbers = [place for place, name in enumerate(feature_set.columns) if name in values and name.startswith(COLUMNS)]
        self._calls = any(one.function is not None for one in feature_set.definitions)
        self._scratch = np.empty(_ROOM, np.uint8)

    def columns(self, scanned: Scanned, chosen: np.ndarray, user: np.ndarray, item: np.ndarray,
                decode: Callable[[np.ndarray], Records]) -> dict[str, np.ndarray]:
        """FeatureSet.event_columns beside the built-in ones, of the rows `chosen` int64[k]. Raises FunctionError and what `tell` raises."""
        inputs = self.inputs(scanned, chosen, user, item)
        taken = take(self.set, inputs, decode(chosen) if self._calls else None)
        if taken.names:
            self._tell(list(dict.fromkeys(taken.names)))
        return columns_of(self.set, inputs, taken)

    def inputs(self, scanned: Scanned, chosen: np.ndarray, user: np.ndarray, item: np.ndarray) -> Inputs:
        k, names = len(chosen), self.set.columns
        places = np.empty((k, len(names), 2), np.int32)
        tokens = np.zeros((k, len(names), VALUES), np.uint64)
        action, scene = np.empty(k, np.uint64), np.empty(k, np.uint64)
        scratch = self._room(scanned, chosen)
        set_kernels.keys_of_text(scanned.data, chosen, scanned.texts, ACTION, _NOTHING, scratch, action)
        set_kernels.keys_of_text(scanned.data, chosen, scanned.texts, SCENE, _SCENE, scratch, scene)
        if names:
            set_kernels.column_places(scanned.data, chosen, scanned.entries, scanned.entry_ends, self._names, self._ends, places)
            scratch = self._room(scanned, chosen, int(places[:, :, 1].max(initial=0)))
            set_kernels.keys_under(scanned.data, places, self._names, self._ends, self._several, scratch, tokens)
        reals = {name: np.full(k, np.nan) for name in names}
        for place in self._numbers:
            for row, (begin, length) in enumerate(places[:, place].tolist()):
                if length:
                    reals[names[place]][row] = number(scanned.data[begin : begin + length].tobytes().decode())
        return Inputs(action, scene, user, item, scanned.value[chosen],
                      {name: np.ascontiguousarray(tokens[:, place]) for place, name in enumerate(names)}, reals)

    def _room(self, scanned: Scanned, chosen: np.ndarray, value: int = 0) -> np.ndarray:
        """Scratch for the longest text with the longest name before it."""
        longest = max(value, int(scanned.texts[chosen][:, (ACTION, SCENE), 1].max(initial=0)))
        wanted = longest + max(map(len, map(str.encode, self._fields)), default=0) + len(_SCENE) + 8
        if wanted > len(self._scratch):
            self._scratch = np.empty(2 * wanted, np.uint8)
        return self._scratch
