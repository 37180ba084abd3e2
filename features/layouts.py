"""How the rows of a group lie, by number: which definitions, in which order, of how many words. Kept in the store for as long as it is.

A definition is known by name and version; what it means may not change under them, so the store remembers it and refuses.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np

from headrace.features.definitions import Definition, DefinitionError
from headrace.features.feature_set import HEADER_WORDS, FeatureSet, Group
from headrace.features.layout import ITEM_ROW, USER_ROW, now
from headrace.features.store import FeatureStore

ROW_VERSION = 1
LAYOUTS_MAX = 255  # a row has a byte for it
_KEY = b"layouts"
GROUP = "group "

Layout = list[tuple[str, int]]
"""(identity, words) of each definition, in order."""


class Layouts:
    """Those of `store`, and the newest of each group, which is `feature_set`'s. Raises DefinitionError."""

    def __init__(self, store: FeatureStore, feature_set: FeatureSet) -> None:
        self._store = store
        held: dict[str, Any] = json.loads(store.note(_KEY) or b'{"meanings": {}, "groups": {}}')
        _check(held["meanings"], feature_set)
        self._known: dict[str, list[Layout]] = held["groups"]
        self._number: dict[str, int] = {}
        for group in feature_set.groups:
            layout = [[feature_set.all[d].identity, int(feature_set.words[d])] for d in group.definitions]
            layouts = self._known.setdefault(group.name, [])
            if layout not in layouts:
                if len(layouts) == LAYOUTS_MAX:
                    raise DefinitionError(f"{feature_set.all[group.definitions[0]].place}: the features of {group.name} were changed"
                                          f" {LAYOUTS_MAX} times, and rows of every time may be left: begin with a new store")
                layouts.append(layout)  # type: ignore[arg-type]
            self._number[group.name] = layouts.index(layout)  # type: ignore[arg-type]
            store.add_family(self.family(group))
        meanings = held["meanings"] | {one.identity: _meaning(one) for one in feature_set.all}
        said = json.dumps({"meanings": meanings, "groups": self._known}).encode()
        if feature_set.all and said != store.note(_KEY):
            store.put_note(_KEY, said)

    @staticmethod
    def family(group: Group) -> str:
        """The column family of a group's rows."""
        return f"{GROUP}{group.name}"

    def rows(self, group: Group, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows float64[n,words], found bool[n]) under uint64[n] keys, in the group's newest layout; zeros for one that is not there."""
        rows, found = self._store.rows(self.family(group), keys, np.dtype(f"V{8 * group.words}"), partial(self._read, group))
        return rows.view(np.float64).reshape(-1, group.words), found

    def _read(self, group: Group, held: list[bytes]) -> np.ndarray:
        number = self._number[group.name]
        if all(row[0] == ROW_VERSION and row[1] == number for row in held):
            return np.frombuffer(b"".join(held), np.float64).reshape(-1, group.words)
        return np.array([self.laid_out(self.family(group), row, number) for row in held])

    def stamp_of(self, group: Group) -> int:
        """The first word of a row of the group's newest layout."""
        header = np.zeros(8, np.uint8)
        header[:2] = ROW_VERSION, self._number[group.name]
        return int(header.view(np.uint64)[0])

    def number_of(self, group: Group) -> int:
        """Of the group's newest layout."""
        return self._number[group.name]

    def laid_out(self, family: str, row: bytes, number: int) -> np.ndarray:
        """float64[words] of a family's row of any layout in the one of this number; of users and items, which have one, as it is."""
        if not family.startswith(GROUP):
            return np.frombuffer(now(row, USER_ROW if family == "users" else ITEM_ROW), np.float64)
        old = np.frombuffer(row, np.float64)
        layouts = self._known[family[len(GROUP) :]]
        assert row[0] == ROW_VERSION, f"a row of {family} of version {row[0]}, this code reads {ROW_VERSION}"
        if row[1] == number:
            return old
        places, at = {}, HEADER_WORDS
        for identity, words in layouts[row[1]]:
            places[identity] = (at, words)
            at += words
        made = np.zeros(HEADER_WORDS + sum(words for _, words in layouts[number]))
        made[:HEADER_WORDS] = old[:HEADER_WORDS]
        at = HEADER_WORDS
        for identity, words in layouts[number]:
            if identity in places:
                begins, held = places[identity]
                assert held == words, f"{identity} has {held} words in a row and {words} here: its meaning was checked"
                made[at : at + words] = old[begins : begins + words]
            at += words
        return made


def identities_held(store: FeatureStore) -> list[str]:
    """name@version of every definition that `store` ever had."""
    return list(json.loads(store.note(_KEY) or b'{"meanings": {}}')["meanings"])


def _meaning(one: Definition) -> dict[str, Any]:
    return json.loads(json.dumps(one.meaning))  # type: ignore[no-any-return]


def _check(held: dict[str, Any], feature_set: FeatureSet) -> None:
    """Raises DefinitionError for a definition that is not what the store holds under its name and version."""
    for one in feature_set.all:
        before, now = held.get(one.identity), _meaning(one)
        if before is not None and before != now:
            key = next(key for key in now if before.get(key) != now[key])
            newest = max(int(name.rsplit("@", 1)[1]) for name in held if name.rsplit("@", 1)[0] == one.name)
            raise DefinitionError(f"{one.place}: feature {one.identity} was kept with {key} = {before.get(key)!r}, and is {now[key]!r} now:"
                                  f" what is kept would not be what it says; write version = {newest + 1}")
