"""Since when each definition is folded, and how far its past was put in: the shard's side of `headrace features backfill`.

A definition that the store had not before begins blank at the shard's sequence then, S: the stream folds its events from S on, and a
backfill the events before S. Its states come in parts, by definition, in order; how many were taken is written with what they changed, in
one record of the log, so a part is taken once, whatever dies.

Time to live: a state of the past goes on in the live one only when no event of between began it anew. Who sends has folded the stream up to
some event and says how far the state had come by then (`reach`); when the live state is further from that than its time to live, this
cannot be told yet: nothing of the part is taken, and the answer says `unsure`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from headrace.features import row_memory
from headrace.features.block_log import Writes
from headrace.features.feature_set import HEADER_WORDS, FeatureSet
from headrace.features.layouts import Layouts, identities_held
from headrace.features.reducer_kernels import LAST_TIME, LOOKUP, LOOKUP_ID, TTL
from headrace.features.row_memory import RowMemory
from headrace.features.set_kernels import NEWEST, merge_rows
from headrace.features.store import FeatureStore, counts_bytes

_KEY = b"backfills"
Answer = dict[str, Any]
Counts = dict[str, int]


class BackfillRefused(Exception):
    """A part that cannot be taken; says why, and what to do. Nothing was changed."""


class Part(NamedTuple):
    """Part `number` of `parts` of a definition's past: row keys uint64[n], ascending; newest float64[n], 1 + the newest event time of the
    row; states uint64[n,words]; reach float64[n], 1 + the newest event time of the state when the stream had been folded behind it as far
    as was known, 0 where the stream has begun it anew. `digest`: of the events that were folded; `before`: the sequence that they end at,
    -1 for a log that was never sent; `about`, told by `told`: events, missing, source."""

    identity: str
    digest: str
    number: int
    parts: int
    before: int
    about: dict[str, Any]
    keys: np.ndarray
    newest: np.ndarray
    reach: np.ndarray
    states: np.ndarray


class Backfills:
    """Of `store`, whose states end `idle_ms` after their newest event: made before its layouts are, `opened` when its log was redone.
    `told`: of each definition that is folded `since` (a sequence; None: since before this was kept), `gap` when it was away, and its
    `backfill`: digest, next (part), parts, events, missing, source, and of attributes `at` which sequence each part was taken."""

    def __init__(self, store: FeatureStore, feature_set: FeatureSet, idle_ms: float = float("inf")) -> None:
        self._store, self.set, self._idle_ms = store, feature_set, idle_ms
        self._place = {one.identity: d for d, one in enumerate(feature_set.all)}
        if store.note(_KEY) is None:
            store.put_note(_KEY, json.dumps({identity: {"since": None} for identity in identities_held(store)}).encode())

    def opened(self, sequence: int) -> None:
        """The store's log is redone, and the next event is folded as `sequence`: new definitions begin here."""
        self._notes: dict[str, dict[str, Any]] = json.loads(self._store.note(_KEY) or b"{}")
        notes = {identity: dict(one) for identity, one in self._notes.items()}
        for identity in self._place:
            one = notes.setdefault(identity, {"since": sequence})
            left = one.pop("left", sequence)
            if left != sequence:  # rows that were changed meanwhile have lost its state, others have not
                one["gap"] = [left, sequence]
        for identity in notes.keys() - self._place.keys():
            notes[identity].setdefault("left", sequence)
        if notes != self._notes:
            self._store.put_note(_KEY, json.dumps(notes).encode())
            self._notes = notes

    @property
    def told(self) -> dict[str, dict[str, Any]]:
        return {identity: self._notes[identity] for identity in self._place}

    def merge(self, part: Part, layouts: Layouts, memory: RowMemory, counts: Counts,
              written: Callable[[Callable[[], None]], None]) -> Answer:
        """Put a part that `check` lets pass into the live rows, in one record with the note of it and the shard's `counts`, which are
        changed when it is `written`."""
        d = self._place[part.identity]
        group = self.set.groups[self.set.group[d]]
        family = layouts.family(group)
        table, at, words = memory.tables[family], int(self.set.at[d]), int(self.set.words[d])
        places = table.hold(memory.turn(), part.keys)
        columns = np.concatenate([np.arange(HEADER_WORDS), np.arange(at, at + words)])
        live = table.rows[places][:, columns]
        ttl = min(self.set.p[d, TTL], self._idle_ms) if may_die(self.set, d) else float("inf")
        unsure = _merged(live, part, self.set.code[d : d + 1], self.set.p[d : d + 1], ttl)
        if unsure:
            return {"unsure": unsure}
        table.rows[places[:, None], columns] = live
        _, new = memory.changed(family, layouts.stamp_of(group))
        rows = counts.get(family, 0) + new
        backfill = {**part.about, "digest": part.digest, "parts": part.parts, "next": part.number + 1}
        if d in self.set.attributes:
            backfill["at"] = [*self._notes[part.identity].get("backfill", {}).get("at", ()), counts["sequence"]]
        notes = self._notes | {part.identity: {**self._notes[part.identity], "backfill": backfill}}
        writes = Writes()
        writes.put("meta", _KEY, json.dumps(notes).encode())
        writes.put("meta", b"counts", counts_bytes(counts | {family: rows}))
        written(lambda: memory.commit(writes))
        self._notes = notes
        counts[family] = rows
        written(memory.settle)
        return {"next": part.number + 1}

    def check(self, part: Part) -> Answer | None:
        """None for the part that comes next, an answer for one that was taken before. Raises BackfillRefused."""
        if part.identity not in self._place:
            raise BackfillRefused(f"{part.identity} is not among the definitions that are kept here")
        note, another = self._notes[part.identity], newer_version(part.identity)
        if note["since"] is None or "gap" in note:
            raise BackfillRefused(f"{part.identity}: {whole_why(note)}; {another}")
        if part.before not in (-1, note["since"]):
            raise BackfillRefused(f"{part.identity} is folded since {note['since']}, and what was sent ends at {part.before}: run the"
                                  " backfill again, against the service that it is meant for")
        begun = note.get("backfill")
        taken = begun["next"] if begun else 0
        if begun and (begun["digest"], begun["parts"]) != (part.digest, part.parts):
            raise BackfillRefused(f"{part.identity} was backfilled ({taken} of {begun['parts']} parts) with {begun['events']:,} events of"
                                  f" {begun['source']}, and these are other ones: what is in its rows cannot be taken out; {another}")
        if part.number > taken:
            raise BackfillRefused(f"{part.identity}: part {part.number} was sent, and {taken} comes next: run the backfill again")
        if len(part.keys) > row_memory.BLOCK:
            raise BackfillRefused(f"{len(part.keys)} rows in a part; at most {row_memory.BLOCK} are taken at once")
        return None if part.number == taken else {"next": taken}


def whole_why(note: dict[str, Any]) -> str:
    """Why a definition cannot be backfilled, "" when it can."""
    if note["since"] is None:
        return "since when it is folded is not known, for the store is of a version that did not keep it"
    if "gap" in note:
        return f"it was taken away at {note['gap'][0]} and came back at {note['gap'][1]}: some rows have kept its states, others have not"
    return ""


def newer_version(identity: str) -> str:
    """What to do about a definition whose states cannot be mended."""
    name, version = identity.rsplit("@", 1)
    return f"write version = {int(version) + 1} of {name.removeprefix('_')}, which begins blank, and backfill that"


def may_die(feature_set: FeatureSet, d: int) -> bool:
    """Whether it matters to a definition's state that one of before passed its time to live: not where the newest event says all."""
    return int(feature_set.code[d]) not in (LAST_TIME, LOOKUP, LOOKUP_ID)


def _merged(live: np.ndarray, part: Part, code: np.ndarray, p: np.ndarray, ttl: float) -> int:
    """Merge the states of a part into live uint64[n,HEADER_WORDS+words], rows of one definition; how many cannot be told yet: when there
    are any, nothing is merged."""
    width, n = live.shape[1], len(live)
    ours, goes_on = live.view(np.float64)[:, HEADER_WORDS].copy(), part.reach > 0
    unsure = int((goes_on & (ours > 0) & (ours - part.reach > ttl)).sum())
    if unsure:
        return unsure
    past = np.zeros_like(live)
    past[:, NEWEST] = part.newest.view(np.uint64)
    past[:, HEADER_WORDS:] = part.states
    past[~goes_on] = 0
    live[(ours > 0) & (past.view(np.float64)[:, HEADER_WORDS] - ours > ttl), HEADER_WORDS:] = 0  # it was too late for the past, all of it
    both = np.concatenate([live, past]).reshape(-1)
    starts = width * np.arange(n)
    merge_rows(both.view(np.float64), both, both.view(np.uint8), starts, width * n + starts, np.array([HEADER_WORDS]),
               np.array([width - HEADER_WORDS]), code, p)  # type: ignore[call-arg]
    live[:] = both[: width * n].reshape(n, width)
    return 0
