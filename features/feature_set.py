"""A feature set: the built-in features and a list of definitions, as arrays that the kernels run on and names that people read.

Slots are keys of the model's input: the built-in ones, then those of definitions that give ids. Numbers are the built-in ones, then those
of the other definitions; they reach a model by its transforms. Rows of one entity, a group, hold the states of all its definitions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from headrace.features import layout
from headrace.features.definition_files import Texts, of_texts
from headrace.features.definitions import COLUMNS, Definition, DefinitionError
from headrace.features.reducer_kernels import PARAMS
from headrace.schemas.hashing import feature_key

VALUES = 4  # of a column that has several, split by |
HEADER_WORDS = 2  # of a row: its layout, and 1 + the newest event time folded
DEFINITIONS_MAX, IDS_MAX = 256, 256
LAST_VALUE = layout.LAST_CLICK_VALUE  # of an id among several: such keys are rare, and at 1 their first steps cost more than they teach
_OWN = ("user.", "item.")  # columns that users and items have, kept in their rows as lookups


class Group(NamedTuple):
    """Rows of one entity: its parts, how many rows an event has at most, words of a row, and the places of its definitions."""

    name: str
    parts: tuple[str, ...]
    rows_max: int
    words: int
    definitions: tuple[int, ...]


class FeatureSet:
    """`definitions` under the `name`, as shop@1. Without definitions it is layout.FEATURE_SET, and costs nothing.

    `all`: the definitions and, behind them, the lookups of the columns that entities are made of. Arrays of D = len(all): group, at, words,
    width, code int64[D], p float64[D,PARAMS], default float64[D], column int64[D] (of the set's own numbers or ids).
    """

    def __init__(self, definitions: Sequence[Definition] = (), files: Texts = ()) -> None:
        self.definitions, self.files = tuple(definitions), files
        if len(self.definitions) > DEFINITIONS_MAX:
            raise DefinitionError(f"{self.definitions[DEFINITIONS_MAX].place}: {len(self.definitions)} features; a set holds at most"
                                  f" {DEFINITIONS_MAX}")
        self.all = (*self.definitions, *_attributes(self.definitions))
        self._plan()

    @classmethod
    def of(cls, files: Texts) -> FeatureSet:
        """Of files of definitions. Raises DefinitionError."""
        return cls(of_texts(files), files)

    def __reduce__(self) -> tuple[object, tuple[Texts]]:
        """Travels as its files' texts: functions of files cannot be pickled."""
        return FeatureSet.of, (self.files,)

    @cached_property
    def name(self) -> str:
        """layout.FEATURE_SET, with a digest of what is read when there are definitions: who holds other ones is told apart by it."""
        return f"{layout.FEATURE_SET}+{self.digest[:12]}" if self.definitions else layout.FEATURE_SET

    @cached_property
    def digest(self) -> str:
        said = [[one.identity, one.meaning, one.blank] for one in self.definitions]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _plan(self) -> None:
        states = [one.state for one in self.all]
        count = len(states)
        names = sorted({one.group for one in self.all})
        self.group = np.array([names.index(one.group) for one in self.all], np.int64)
        self.words = np.array([state.words for state in states], np.int64)
        self.width = np.array([state.width for state in states], np.int64)
        self.code = np.array([state.code for state in states], np.int64)
        self.p = np.array([state.p for state in states]).reshape(count, PARAMS)
        self.default = np.array([one.blank for one in self.all], np.float64)
        self.at, self.column = np.zeros(count, np.int64), np.zeros(count, np.int64)
        ends, numbers, ids = dict.fromkeys(names, HEADER_WORDS), list[str](), list[str]()
        versioned_numbers, versioned_ids = list[str](), list[str]()
        for d, (one, state) in enumerate(zip(self.all, states, strict=True)):
            self.at[d] = ends[one.group]
            ends[one.group] += state.words
            self.column[d] = len(ids) if state.width else len(numbers)
            numbers += [] if state.width else [one.name_in(self.definitions)]
            ids += [f"{one.name_in(self.definitions)}.{n}" for n in range(state.width)]
            versioned_numbers += [] if state.width else [one.identity]
            versioned_ids += [f"{one.identity}.{n}" for n in range(state.width)]
        shown = len(self.definitions)  # what is behind is for finding rows only
        self.ids_all = len(ids)
        self.own_ids = sum(state.width for state in states[:shown])
        if self.own_ids > IDS_MAX:
            raise DefinitionError(f"the features give {self.own_ids} ids in all; a set has at most {IDS_MAX}")
        self.own_numbers = len(numbers)  # attributes are ids
        self.groups = tuple(self._group(name, ends[name]) for name in names)
        self.rows_max = max((group.rows_max for group in self.groups), default=1)
        self.numbers = (*layout.NUMBERS, *numbers)
        self.slots = (*layout.SLOTS, *ids[: self.own_ids])
        # A name moves on to the newest version; what is kept or on its way is known by names that do not.
        self.layout_numbers = (*layout.NUMBERS, *versioned_numbers)
        self.layout_slots = (*layout.SLOTS, *versioned_ids[: self.own_ids])
        self.K, self.F = len(self.numbers), len(self.slots)
        widths = self.width[:shown]
        seeds = [feature_key(one.name_in(self.definitions), "") for one in self.definitions]
        self.id_seeds = np.repeat(np.array(seeds, np.uint64), widths)
        self.id_values = np.repeat(np.where(widths > 1, LAST_VALUE, 1.0).astype(np.float32), widths)
        self.blank_numbers = np.concatenate([np.zeros(layout.K), self.default[:shown][widths == 0]]).astype(np.float32)
        self.empty_keys = np.concatenate([layout.EMPTY_KEYS, self.id_seeds])
        sides = np.array([_side(one.entity) for one in self.definitions], np.uint8)
        self.side = np.concatenate([layout.SIDE, np.repeat(sides, widths)])
        self.arrays = (self.group, self.at, self.words, self.width, self.code, self.p)

    def _group(self, name: str, words: int) -> Group:
        mine = tuple(int(d) for d in np.nonzero([one.group == name for one in self.all])[0])
        parts = self.all[mine[0]].entity
        return Group(name, parts, VALUES ** sum(part.startswith(_OWN) for part in parts), words, mine)

    @cached_property
    def event_columns(self) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        """layout.EVENT_COLUMNS, and what definitions take of events (features/inputs.py): x, y float64[n,D], tokens uint64[n,T,VALUES] of
        `with_tokens`, moment uint64[n,P] of `moments`."""
        if not self.definitions:
            return layout.EVENT_COLUMNS
        count = len(self.all)
        return {**layout.EVENT_COLUMNS, "x": ("float64", (None, count)), "y": ("float64", (None, count)),
                "tokens": ("uint64", (None, len(self.with_tokens), VALUES)), "moment": ("uint64", (None, len(self.moments)))}

    @cached_property
    def moments(self) -> tuple[str, ...]:
        """The parts of entities that a request tells: scene, context.NAME, sorted."""
        return tuple(sorted({part for one in self.all for part in one.entity if part == "scene" or part.startswith("context.")}))

    @cached_property
    def attributes(self) -> tuple[int, ...]:
        """Which of `all` keep columns of users and items."""
        return tuple(range(len(self.definitions), len(self.all)))

    @cached_property
    def with_tokens(self) -> np.ndarray:
        """int64[T]: which of `all` take ids."""
        return np.array([d for d, one in enumerate(self.all) if one.kind.takes == "token"], np.int64)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column of the context map that a definition looks at, sorted."""
        found = {part for one in self.all for part in one.entity if part.startswith(COLUMNS)}
        found |= {str(one.value) for one in self.all if str(one.value).startswith(COLUMNS)}
        conditions = [condition for one in self.all for condition in (one.where, one.over) if condition is not None]
        return tuple(sorted(found | {name for condition in conditions for name, _ in condition.columns}))


def _attributes(definitions: Sequence[Definition]) -> list[Definition]:
    """A lookup for each column of users or items that an entity is made of: the rows of such an entity are found by it."""
    parts = sorted({part for one in definitions for part in one.entity if part.startswith(_OWN)})
    return [Definition(f"_{part.replace('.', '_')}", 1, (part.split(".")[0],), "lookup_id", value=part, parameters=(("n", float(VALUES)),))
            for part in parts]


def _side(entity: tuple[str, ...]) -> int:
    """layout.SIDE of a slot: of users, of items, or of neither alone."""
    sides = {1 if part.split(".")[0] == "user" else 2 if part.split(".")[0] == "item" else 0 for part in entity}
    return sides.pop() if len(sides) == 1 else 0


BASE = FeatureSet()
