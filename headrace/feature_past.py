"""The past of definitions, folded into a shard in a temporary folder by the product's own code, and taken out definition by definition.

`Taken` are the states of the events before the place at which the definitions began. `Later` folds on, behind that place, twice: behind
the past, and from blank rows as the service did. Where both have the same state the past has no part in it (its time to live had passed
when the stream began it anew, or nothing is left of it), and it is not to be merged.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from headrace.features.backfilled import Part
from headrace.features.events import EventBatch
from headrace.features.feature_set import FeatureSet
from headrace.features.inputs import FunctionError
from headrace.features.set_kernels import NEWEST
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.offline import causes_of

Record = Mapping[str, Any]
BLOCK, RING = 2048, 1 << 26
PART_ROWS, PART_BYTES = 1024, 8 << 20
Names = Callable[[list[str]], Any]
"""Is told what keys mean, "field=value"."""
Columns = dict[str, np.ndarray]


def part_rows(words: int) -> int:
    """Rows of a part of states of so many words: the same in every run, since parts are counted."""
    return max(1, min(PART_ROWS, PART_BYTES // (8 * words)))


class Scratch:
    """A shard of `feature_set` in `folder`. `folded` events so far; `failed` on which a definition's function failed: in the stream they
    are dead letters. `digest`: of all events that were given."""

    def __init__(self, folder: Path, feature_set: FeatureSet, half_life_s: float, idle_s: float = 0.0) -> None:
        self.set, self.folded, self.failed = feature_set, 0, 0
        self.shard = FeatureShard(FeatureStore(folder), half_life_s=half_life_s, ring_length=RING, frozen_offsets=4096,
                                  feature_set=feature_set, idle_s=idle_s)
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()[:16]

    def fold(self, events: Iterable[Record], names: Names = lambda names: None,
             change: Callable[[Columns, int], None] = lambda columns, first: None) -> None:
        """In order. What functions of definitions fail on is left out. `change` may have definitions not count some of a block, which
        begins with the `first` of these events."""
        first = 0
        given = iter(events)
        while block := list(islice(given, BLOCK)):
            for event in block:
                self._hash.update(_said(event))
            try:
                batch = EventBatch([dict(event) for event in block], self.set)
            except FunctionError:
                block = [event for event in block if self._taken(event)]
                batch = EventBatch([dict(event) for event in block], self.set)
            names(batch.names)
            change(batch.columns, first)
            first += len(block)
            if block:
                self.shard.freeze_and_fold(causes_of(np.arange(self.folded, self.folded + len(block))), batch.columns)
            self.folded += len(block)

    def _taken(self, event: Record) -> bool:
        try:
            EventBatch([dict(event)], self.set)
        except FunctionError:
            self.failed += 1
            return False
        return True

    def family(self, d: int) -> str:
        """Of the rows that definition d of the set lives in."""
        return f"group {self.set.all[d].group}"

    def rows(self, d: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(keys uint64[n], rows uint64[n,words]) of all that hold a state of definition d, keys ascending, some at a time."""
        self.shard.flush()
        words = self.set.groups[self.set.group[d]].words
        held = self.shard.store.scan(self.family(d))
        while some := list(islice(held, PART_ROWS)):
            keys = np.frombuffer(b"".join(key for key, _ in some), ">u8").astype(np.uint64)
            rows = np.frombuffer(b"".join(row for _, row in some), np.uint64).reshape(-1, words)
            has = rows[:, self.set.at[d]] != 0
            yield keys[has], rows[has]

    def states(self, d: int, keys: np.ndarray) -> np.ndarray:
        """States uint64[n,words] of definition d under keys uint64[n], as they were `flush`ed; zeros where there is none."""
        words, at = self.set.groups[self.set.group[d]].words, int(self.set.at[d])
        rows, _ = self.shard.store.rows(self.family(d), keys, np.dtype(f"V{8 * words}"))
        return rows.view(np.uint64).reshape(len(keys), words)[:, at : at + int(self.set.words[d])]

    def close(self) -> None:
        self.shard.store.close()


class Taken:
    """The states of definition d, taken out of `scratch` into a file of `folder`: they stay as they are when it folds on."""

    def __init__(self, scratch: Scratch, d: int, folder: Path) -> None:
        self.d, self.identity, words = d, scratch.set.all[d].identity, int(scratch.set.words[d])
        self._dtype = np.dtype([("key", "<u8"), ("newest", "<f8"), ("state", "<u8", (words,))])
        self._file, at, self.count = folder / f"{d}.states", int(scratch.set.at[d]), 0
        self._rows = part_rows(words)
        with self._file.open("wb") as file:
            for keys, rows in scratch.rows(d):
                made = np.empty(len(keys), self._dtype)
                made["key"], made["newest"], made["state"] = keys, rows[:, NEWEST].view(np.float64), rows[:, at : at + words]
                file.write(made.tobytes())
                self.count += len(keys)

    @property
    def parts(self) -> int:
        """At least one: a definition without any state has its note as well."""
        return max(1, -(-self.count // self._rows))

    def keys(self) -> np.ndarray:
        """uint64[count], ascending."""
        return np.fromfile(self._file, self._dtype)["key"].copy()

    def part_of(self, places: np.ndarray) -> np.ndarray:
        """In which part the states at places int64[n] of `keys` are."""
        return places // self._rows

    def part(self, number: int, digest: str, before: int, about: dict[str, Any]) -> Part:
        """`reach` is the state's own: nothing was folded behind it."""
        size, start = self._dtype.itemsize, number * self._rows
        held = np.fromfile(self._file, self._dtype, min(self._rows, self.count - start), offset=start * size)
        states = np.ascontiguousarray(held["state"])
        return Part(self.identity, digest, number, self.parts, before, about, held["key"].copy(), held["newest"].copy(),
                    states[:, 0].copy().view(np.float64), states)


class Unfound:
    """Which events behind `since` the service could not put into the rows of `pairs` (definitions), because it did not know yet what was
    said of the item or user in the past: not said by the event, nor since. `attributes`: by place in the set their states of the past, and
    at which sequence each part of them was merged: from then on the service knew."""

    def __init__(self, feature_set: FeatureSet, since: int, pairs: Sequence[int],
                 attributes: Mapping[int, tuple[Taken, Sequence[int]]]) -> None:
        self._set, self.pairs = feature_set, pairs
        self._until: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._said: dict[int, set[int]] = {a: set() for a in attributes}
        self.end = since
        for a, (taken, merged_at) in attributes.items():
            keys = taken.keys()
            self._until[a] = keys, np.array(merged_at, np.int64)[taken.part_of(np.arange(len(keys)))]
            self.end = max(self.end, *merged_at)

    def only(self, columns: Columns, at: int) -> None:
        """Have the pairs count these of a block alone; its first event was folded as `at`."""
        missed = {str(self._set.all[a].value): self._missed(a, columns, at) for a in self._until}
        for d in self.pairs:
            counted = np.zeros(len(columns["x"]), bool)
            for part in self._set.all[d].entity:
                counted |= missed.get(part, counted)
            columns["x"][~counted, d] = columns["y"][~counted, d] = math.nan

    def _missed(self, a: int, columns: Columns, at: int) -> np.ndarray:
        keys, until = self._until[a]
        owners, said = columns[self._set.all[a].entity[0]], self._said[a]
        says = columns["tokens"][:, np.nonzero(self._set.with_tokens == a)[0][0], 0] != 0
        unsaid = np.zeros(len(owners), bool)
        for n, (owner, now) in enumerate(zip(owners.tolist(), says.tolist(), strict=True)):
            if now:
                said.add(owner)
            unsaid[n] = owner not in said
        if not len(keys):
            return np.zeros(len(owners), bool)
        place = np.minimum(np.searchsorted(keys, owners), len(keys) - 1)
        return unsaid & (keys[place] == owners) & (at + np.arange(len(owners)) < until[place])


class Later:
    """The events from `since` on, folded behind the past in `full`, and into a shard of its own that begins as the service's did. `more`
    gives those that there are from a place on. `attributes`: what the service knew of items and users at `since`. Definitions of `unfound`
    are folded in `full` alone, and only what the service could not put into their rows."""

    def __init__(self, full: Scratch, blank: Scratch, since: int, more: Callable[[int], Sequence[Record]], unfound: Unfound,
                 attributes: Iterable[Taken] = ()) -> None:
        self._full, self._blank, self._more, self._unfound, self.at = full, blank, more, unfound, since
        for one in attributes:
            for number in range(one.parts):
                blank.shard.merge_states(one.part(number, "", -1, {"events": 0, "source": ""}))

    def advance(self) -> None:
        """Fold what there is by now."""
        while events := self._more(self.at):
            at = self.at
            self._full.fold(events, change=lambda columns, first, at=at: self._unfound.only(columns, at + first))  # type: ignore[misc]
            self._blank.fold(events)
            self.at += len(events)
        self._full.shard.flush()
        self._blank.shard.flush()

    def close(self) -> None:
        self._blank.close()

    def reached(self, d: int, part: Part) -> Part:
        """A part with what became of its states by now."""
        full, blank = self._full.states(d, part.keys), self._blank.states(d, part.keys)
        goes_on = (full != blank).any(axis=1)
        newest = np.ascontiguousarray(full[:, 0]).view(np.float64)
        return part._replace(reach=np.where(goes_on, newest, 0.0))


def _said(event: Record) -> bytes:
    """What of an event is folded, as bytes: the same in every run."""
    said = [event[name] for name in ("event_id", "user_id", "item_id", "scene", "action", "value", "ts_ms")]
    return json.dumps([*said, sorted(event["context"].items())]).encode()
