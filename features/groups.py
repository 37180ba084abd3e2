"""The rows of a feature set's groups: found for events, folded and read. One thread calls it, the shard's.

A row is words of 8 bytes: its version and layout, 1 + the newest event time, then the states of the group's definitions. Nothing is decoded
when it is read. When definitions are added or taken away the layout gets another number, and a row of an older one is laid out anew when it
is next read: states of definitions that stay are kept, those of new ones begin blank.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from headrace.features import set_kernels
from headrace.features.feature_set import VALUES, FeatureSet, Group
from headrace.features.inputs import Taken
from headrace.features.layout import NEVER_MS, F, K
from headrace.features.layouts import Layouts
from headrace.features.reducer_kernels import TTL
from headrace.features.row_memory import RowMemory
from headrace.features.row_table import RowTable
from headrace.features.store import FeatureStore


class Extra(NamedTuple):
    """What a set's definitions say: numbers float32[n,N], ids uint64[n,I] (tokens, 0 for fewer)."""

    numbers: np.ndarray
    ids: np.ndarray


class Groups:
    """Of `feature_set` in `store`. A state that is idle for more than `idle_ms` begins anew, if not before.
    Raises DefinitionError when a definition was changed under its version."""

    def __init__(self, store: FeatureStore, feature_set: FeatureSet, idle_ms: int = NEVER_MS) -> None:
        self.set = feature_set
        *arrays, p = feature_set.arrays
        self._all = *arrays, p.copy()
        np.minimum(p[:, TTL], idle_ms, out=self._all[-1][:, TTL])
        self._attributed = np.array(feature_set.attributes, np.int64)
        self._own = tuple(array[: len(feature_set.definitions)] for array in self._all)
        self.layouts = Layouts(store, feature_set)

    def open(self, memory: RowMemory) -> None:
        """Have the tables of all groups in one piece of memory, so that kernels see one; behind them are the words in which the states of
        several rows are merged."""
        places = [memory.places(group.words, group.rows_max) for group in self.set.groups]
        sizes = [(1 + count) * group.words for count, group in zip(places, self.set.groups, strict=True)]
        words = sum(sizes)
        self._memory, self._scratch = memory, words
        self._f = np.zeros(words + int(self.set.words.max(initial=0)))
        self._views = self._f, self._f.view(np.uint64), self._f.view(np.uint8)
        self._tables, self._base, base = list[RowTable](), list[int](), 0
        for group, size in zip(self.set.groups, sizes, strict=True):
            self._tables.append(memory.add(self.layouts.family(group), self._views[1][base : base + size], group.words,
                                           partial(self._load, group), rows_max=group.rows_max, layout=self.layouts.number_of(group)))
            self._base.append(base)
            base += size

    def _load(self, group: Group, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, found = self.layouts.rows(group, keys)
        return rows.view(np.uint64), found

    def fold(self, turn: int, user: np.ndarray, item: np.ndarray, moment: np.ndarray, taken: Taken, ts_ms: np.ndarray, frozen: np.ndarray,
             folded: np.ndarray) -> Extra:
        """n events in order: what those in frozen uint8[n] see, and those in folded uint8[n] put in. user, item uint64[n], moment
        uint64[n,P] of the set's moments. `changed` then says what to write."""
        starts = self._rows(turn, user, item, moment, ts_ms, taken.tokens[:, self._attributed], folded, True)
        extra = self._blank(len(ts_ms))
        own = slice(0, len(self.set.definitions))
        set_kernels.freeze_and_fold_groups(
            *self._views, starts, *self._own, self.set.default[own], self.set.column[own], self._scratch,
            np.ascontiguousarray(taken.x[:, own]), np.ascontiguousarray(taken.y[:, own]),
            np.ascontiguousarray(taken.tokens[:, own]), ts_ms, frozen, folded, *extra)  # type: ignore[call-arg]
        return extra

    def changed(self) -> dict[str, int]:
        """Take what was folded into the log; of each family how many rows are new."""
        families = [(group, self.layouts.family(group)) for group in self.set.groups]
        return {family: self._memory.changed(family, self.layouts.stamp_of(group))[1] for group, family in families}

    def read(self, turn: int, user: np.ndarray, item: np.ndarray, moment: np.ndarray, ts_ms: np.ndarray) -> Extra:
        """What m pairs see at ts_ms int64[m]; user or item 0: none."""
        none = np.zeros((len(ts_ms), len(self._attributed), VALUES), np.uint64)
        starts = self._rows(turn, user, item, moment, ts_ms, none, np.zeros(len(ts_ms), np.uint8), False)
        extra = self._blank(len(ts_ms))
        own = slice(0, len(self.set.definitions))
        set_kernels.read_groups(*self._views, starts, *self._own, self.set.default[own], self.set.column[own], self._scratch, ts_ms, *extra)  # type: ignore[call-arg]
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

    def _blank(self, n: int) -> Extra:
        return Extra(np.zeros((n, self.set.own_numbers), np.float32), np.zeros((n, self.set.ids_all), np.uint64))

    def _rows(self, turn: int, user: np.ndarray, item: np.ndarray, moment: np.ndarray, ts_ms: np.ndarray, tokens: np.ndarray,
              folded: np.ndarray, holds: bool) -> np.ndarray:
        """Where the rows of all groups of n events start: int64[n,G,M]. The columns that events carry are folded by then, because they say
        which rows an event of an entity such as user x item.author has. `holds`: they are going to be changed."""
        feature_set, n = self.set, len(ts_ms)
        starts = np.full((n, len(feature_set.groups), feature_set.rows_max), -1, np.int64)
        parts = {"user": user[:, None], "item": item[:, None]}
        parts |= {name: moment[:, [place]] for place, name in enumerate(feature_set.moments)}
        later = []
        for place, group in enumerate(feature_set.groups):
            if set(group.parts) <= set(parts):
                self._find(turn, place, parts, starts[:, place], holds)
            else:
                later.append(place)
        if later:
            parts |= self._attributes(starts, tokens, ts_ms, folded)
            for place in later:
                self._find(turn, place, parts, starts[:, place], holds)
        return starts

    def _attributes(self, starts: np.ndarray, tokens: np.ndarray, ts_ms: np.ndarray, folded: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of users and items as they are at each event: uint64[n,VALUES] by part."""
        feature_set, which = self.set, self._attributed
        found = np.zeros((len(ts_ms), len(which), VALUES), np.uint64)
        set_kernels.fold_attributes(*self._views[:2], starts, feature_set.group[which], feature_set.at[which], feature_set.width[which],
                                    self._all[-1][which], np.ascontiguousarray(tokens), ts_ms, folded, found)
        return {str(feature_set.all[d].value): found[:, a] for a, d in enumerate(which)}

    def _find(self, turn: int, place: int, parts: Mapping[str, np.ndarray], starts: np.ndarray, holds: bool) -> None:
        """Have a group's rows in memory, and say where they start: into int64[n,M]."""
        group, table = self.set.groups[place], self._tables[place]
        keys = _row_keys([parts[part] for part in group.parts])
        flat = np.ascontiguousarray(keys).reshape(-1)
        places = table.hold(turn, flat) if holds else table.look(turn, flat)
        starts[:, : keys.shape[1]] = np.where(places != 0, self._base[place] + places * group.words, -1).reshape(keys.shape)


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
