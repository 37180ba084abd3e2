"""The rows of a feature set's groups: found for events, folded, read and written. One thread calls it, the shard's.

A row is words of 8 bytes: its version and layout, 1 + the newest event time, then the states of the group's definitions. Nothing is decoded
when it is read. When definitions are added or taken away the layout gets another number, and a row of an older one is laid out anew when it
is next read: states of definitions that stay are kept, those of new ones begin blank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from headrace.features import set_kernels
from headrace.features.feature_set import VALUES, FeatureSet, Group
from headrace.features.inputs import Taken
from headrace.features.layout import F, K
from headrace.features.layouts import Layouts
from headrace.features.store import Batch, FeatureStore


class Extra(NamedTuple):
    """What a set's definitions say: numbers float32[n,N], ids uint64[n,I] (tokens, 0 for fewer)."""

    numbers: np.ndarray
    ids: np.ndarray


class _Memory:
    """Rows of all groups of a call, one after the other: f float64[words], and of each group the distinct keys, where they start, which
    were there."""

    def __init__(self) -> None:
        self.f = np.zeros(0)
        self.keys: dict[str, np.ndarray] = {}
        self.begins: dict[str, np.ndarray] = {}
        self.found: dict[str, np.ndarray] = {}

    def views(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.f, self.f.view(np.uint64), self.f.view(np.uint8)


class Groups:
    """Of `feature_set` in `store`. Raises DefinitionError when a definition was changed under its version."""

    def __init__(self, store: FeatureStore, feature_set: FeatureSet) -> None:
        self._store, self.set = store, feature_set
        self.layouts = Layouts(store, feature_set)

    def fold(self, user: np.ndarray, item: np.ndarray, moment: np.ndarray, taken: Taken, ts_ms: np.ndarray, frozen: np.ndarray,
             folded: np.ndarray, batch: Batch) -> tuple[Extra, dict[str, int]]:
        """n events in order: what those in frozen uint8[n] see, and those in folded uint8[n] put in; changed rows go into `batch`, and how
        many of them are new is told by family. user, item uint64[n], moment uint64[n,P] of the set's moments."""
        memory, starts = self._rows(user, item, moment, ts_ms, taken.tokens, folded)
        extra = self._blank(len(ts_ms))
        own = slice(0, len(self.set.definitions))
        set_kernels.freeze_and_fold_groups(
            *memory.views(), starts, *(array[own] for array in self.set.arrays), self.set.default[own], self.set.column[own],
            len(memory.f) - self._scratch, np.ascontiguousarray(taken.x[:, own]), np.ascontiguousarray(taken.y[:, own]),
            np.ascontiguousarray(taken.tokens[:, own]), ts_ms, frozen, folded, *extra)  # type: ignore[call-arg]
        return extra, self._write(memory, starts, folded, batch)

    def read(self, user: np.ndarray, item: np.ndarray, moment: np.ndarray, ts_ms: np.ndarray) -> Extra:
        """What m pairs see at ts_ms int64[m]; user or item 0: none."""
        none = np.zeros((len(ts_ms), len(self.set.all), VALUES), np.uint64)
        memory, starts = self._rows(user, item, moment, ts_ms, none, np.zeros(len(ts_ms), np.uint8))
        extra = self._blank(len(ts_ms))
        own = slice(0, len(self.set.definitions))
        set_kernels.read_groups(*memory.views(), starts, *(array[own] for array in self.set.arrays), self.set.default[own],
                                self.set.column[own], len(memory.f) - self._scratch, ts_ms, *extra)  # type: ignore[call-arg]
        return extra

    def put(self, extra: Extra, chosen: np.ndarray, keys: np.ndarray, values: np.ndarray, numbers: np.ndarray) -> None:
        """Put what definitions say into the rows `chosen` bool[n] of samples: keys uint64[n,F], values float32[n,F], numbers float32[n,K],
        behind the built-in features. An id's key is of its feature and the id; no id is the feature's empty key, with the value 0."""
        feature_set = self.set
        ids = extra.ids[chosen, : feature_set.own_ids]
        mixed = np.empty(ids.size, np.uint64)
        set_kernels.mix_pairs(np.tile(feature_set.id_seeds, len(ids)), np.ascontiguousarray(ids).reshape(-1), mixed)
        keys[chosen, F:] = np.where(ids != 0, mixed.reshape(ids.shape), feature_set.id_seeds)
        values[chosen, F:] = np.where(ids != 0, feature_set.id_values, np.float32(0))
        numbers[chosen, K:] = extra.numbers[chosen]

    @property
    def _scratch(self) -> int:
        """Words behind the rows, in which the states of several rows are merged."""
        return int(self.set.words.max())

    def _blank(self, n: int) -> Extra:
        return Extra(np.zeros((n, self.set.own_numbers), np.float32), np.zeros((n, self.set.ids_all), np.uint64))

    def _rows(self, user: np.ndarray, item: np.ndarray, moment: np.ndarray, ts_ms: np.ndarray, tokens: np.ndarray,
              folded: np.ndarray) -> tuple[_Memory, np.ndarray]:
        """The rows of all groups of n events, and where they start: int64[n,G,M]. The columns that events carry are folded by then, because
        they say which rows an event of an entity such as user x item.author has."""
        feature_set, n = self.set, len(ts_ms)
        starts = np.full((n, len(feature_set.groups), feature_set.rows_max), -1, np.int64)
        parts = {"user": user[:, None], "item": item[:, None]}
        parts |= {name: moment[:, [place]] for place, name in enumerate(feature_set.moments)}
        memory = _Memory()
        later = []
        for place, group in enumerate(feature_set.groups):
            if set(group.parts) <= set(parts):
                self._find(memory, group, parts, starts[:, place])
            else:
                later.append((place, group))
        if later:
            parts |= self._attributes(memory, starts, tokens, ts_ms, folded)
            for place, group in later:
                self._find(memory, group, parts, starts[:, place])
        memory.f = np.concatenate([memory.f, np.zeros(self._scratch)])
        return memory, starts

    def _attributes(self, memory: _Memory, starts: np.ndarray, tokens: np.ndarray, ts_ms: np.ndarray,
                    folded: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of users and items as they are at each event: uint64[n,VALUES] by part."""
        feature_set, which = self.set, np.array(self.set.attributes)
        found = np.zeros((len(ts_ms), len(which), VALUES), np.uint64)
        set_kernels.fold_attributes(*memory.views()[:2], starts, feature_set.group[which], feature_set.at[which], feature_set.width[which],
                                    np.ascontiguousarray(tokens[:, which]), ts_ms, folded, found)
        return {str(feature_set.all[d].value): found[:, a] for a, d in enumerate(which)}

    def _find(self, memory: _Memory, group: Group, parts: Mapping[str, np.ndarray], starts: np.ndarray) -> None:
        """Put a group's rows behind those in memory, and say where they start: into int64[n,M]."""
        keys = _row_keys([parts[part] for part in group.parts])
        distinct, index = np.unique(keys, return_inverse=True)
        rows, found = self.layouts.rows(group, distinct[distinct != 0])
        begins = len(memory.f) + np.arange(len(rows)) * group.words
        if len(distinct) and distinct[0] == 0:
            begins = np.concatenate([[-1], begins])
        starts[:, : keys.shape[1]] = begins[index.reshape(keys.shape)] if len(keys) else -1
        memory.f = np.concatenate([memory.f, rows.reshape(-1)])
        memory.keys[group.name], memory.begins[group.name] = distinct[distinct != 0], begins[begins >= 0]
        memory.found[group.name] = found

    def _write(self, memory: _Memory, starts: np.ndarray, folded: np.ndarray, batch: Batch) -> dict[str, int]:
        """Rows that a folded event has; how many of them are new. A row into which nothing was ever folded (its time is 0) is not kept."""
        new = {}
        for place, group in enumerate(self.set.groups):
            begins, keys = memory.begins[group.name], memory.keys[group.name]
            touched = np.isin(begins, starts[folded.astype(bool), place])
            touched &= memory.f[begins + set_kernels.NEWEST] != 0 if len(begins) else False
            if touched.any():
                rows = memory.f[begins[touched][:, None] + np.arange(group.words)]
                self.layouts.stamp(group, rows)
                batch.put_rows(self.layouts.family(group), keys[touched], rows.view(f"V{8 * group.words}").reshape(-1))
                new[self.layouts.family(group)] = int((~memory.found[group.name][touched]).sum())
        return new


def _row_keys(parts: list[np.ndarray]) -> np.ndarray:
    """uint64[n,M] of one or two parts uint64[n,m]: M the product of their m; 0 where a part has no value."""
    if len(parts) == 1:
        return parts[0]
    first, second = parts
    n = len(first)
    a = np.repeat(first, second.shape[1], axis=1).reshape(-1)
    b = np.tile(second, (1, first.shape[1])).reshape(-1)
    made = np.empty(len(a), np.uint64)
    set_kernels.mix_pairs(np.ascontiguousarray(a), np.ascontiguousarray(b), made)
    return made.reshape(n, -1)
