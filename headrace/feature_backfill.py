"""What definitions that are new lack: the past, folded once more and sent to the running feature service, while the stream goes on.

A definition began blank at a sequence of the service (features/backfilled.py); the events before it are the past. Those that began at one
place are done together: the past is folded in a temporary folder, each state sent in parts, attributes (by which rows of pairs are found)
first. A run that was killed is begun again by the same command: parts that were taken are known by their number.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from headrace.feature_history import History
from headrace.feature_past import Later, Scratch, Taken, Unfound
from headrace.features.backfilled import Part, may_die, newer_version, whole_why
from headrace.features.feature_set import FeatureSet

WAIT_S, PAUSE_S = 60.0, 0.2
Tell = Callable[[str], Any]
Note = dict[str, Any]


class FeatureBackfillError(Exception):
    """What was asked for cannot be backfilled, or not like this; the message says what to do."""


class Service(Protocol):
    """features.client.FeatureClient."""

    def backfills(self) -> dict[str, Any]: ...

    def merge_states(self, part: Part) -> dict[str, Any]: ...

    def names(self, names: Iterable[str]) -> int: ...


class ToDo(NamedTuple):
    """Definitions (places in FeatureSet.all, attributes first) that began at `since`: `events` of the past are there, `missing` are not."""

    since: int
    definitions: tuple[int, ...]
    events: int
    missing: int


def state_of(note: Note) -> str:
    """whole, done, begun, lacks, or lost: cannot be backfilled."""
    if whole_why(note):
        return "lost"
    begun = note.get("backfill")
    if begun:
        return "done" if begun["next"] == begun["parts"] else "begun"
    return "lacks" if note["since"] else "whole"


def to_do(feature_set: FeatureSet, notes: dict[str, Note], history: History, names: Sequence[str] = ()) -> list[ToDo]:
    """What is left of the definitions `names` (all that lack their past by default), with the attributes that their entities need. Raises
    FeatureBackfillError for a name that is none, and for a definition that cannot be backfilled."""
    places = _places(feature_set, names) if names else range(len(feature_set.definitions))
    parts = {part for d in places for part in feature_set.all[d].entity}
    chosen = [d for d in feature_set.attributes if feature_set.all[d].value in parts] + list(places)
    found: dict[int, list[int]] = {}
    for d in chosen:
        identity = feature_set.all[d].identity
        note = notes[identity]
        if names and whole_why(note):
            raise FeatureBackfillError(f"{identity}: {whole_why(note)}; {newer_version(identity)}")
        if names and state_of(note) == "done" and note["backfill"]["source"] != history.source:
            done = note["backfill"]
            raise FeatureBackfillError(f"{identity} was backfilled with {done['events']:,} events of {done['source']}, and not of"
                                       f" {history.source}: what is in its rows cannot be taken out; {newer_version(identity)}")
        if state_of(note) in ("lacks", "begun") or (state_of(note) == "whole" and not history.sent):
            found.setdefault(note["since"], []).append(d)
    made = []
    for since, definitions in sorted(found.items()):
        events = history.count(since)
        made.append(ToDo(since, tuple(definitions), events, since - events if history.sent else 0))
    return made


def _places(feature_set: FeatureSet, names: Sequence[str]) -> list[int]:
    found = []
    for name in names:
        mine = [d for d, one in enumerate(feature_set.definitions) if name in (one.identity, one.name_in(feature_set.definitions))]
        if not mine:
            known = ", ".join(one.name_in(feature_set.definitions) for one in feature_set.definitions)
            raise FeatureBackfillError(f"{name!r} is no feature of [features] definitions; there are {known}")
        found += mine
    return sorted(set(found))


def backfill(service: Service, feature_set: FeatureSet, history: History, names: Sequence[str] = (), *, half_life_s: float,
             idle_s: float = 0.0, partial: bool = False, tell: Tell = lambda text: None) -> list[ToDo]:
    """Do what `to_do` says; returns that. Raises FeatureBackfillError when events of the past are gone and `partial` is not given, and
    Refused and Unavailable of the service: Unavailable is to be run again."""
    work = to_do(feature_set, service.backfills()["definitions"], history, names)
    for one in work:
        if one.missing and not partial:
            raise FeatureBackfillError(missing(feature_set, one))
    for one in work:
        with tempfile.TemporaryDirectory(prefix="headrace-backfill-") as folder:
            _Run(service, feature_set, history, one, Path(folder), (half_life_s, idle_s), partial, tell).run()
    return work


def missing(feature_set: FeatureSet, one: ToDo) -> str:
    """That not all of the past is there, and what to do."""
    said = ", ".join(feature_set.all[d].identity for d in one.definitions)
    return (f"{one.missing:,} of the {one.since:,} events before {said} began are gone from the topics (kafka.retention_ms): --partial"
            f" goes on with the {one.events:,} that are there, --file LOG takes the past of a log that you kept")


class _Run:
    """Of definitions that began at one place, in `folder`."""

    def __init__(self, service: Service, feature_set: FeatureSet, history: History, work: ToDo, folder: Path,
                 spans_s: tuple[float, float], partial: bool, tell: Tell) -> None:
        self._service, self._set, self._history, self._work, self._tell = service, feature_set, history, work, tell
        self._folder, self._spans_s, self._partial = folder, spans_s, partial
        self._later: Later | None = None

    def run(self) -> None:
        scratch, first = self._scratch("past"), len(self._set.definitions)
        try:
            self._tell(f"{self._work.events:,} events are folded")
            scratch.fold(self._history.before(self._work.since), self._named)
            digest = scratch.digest  # before the stream is folded behind them
            about = {"events": scratch.folded, "missing": self._work.missing, "source": self._history.source}
            taken = {d: Taken(scratch, d, self._folder) for d in {*self._work.definitions, *self._set.attributes}}
            for d in self._work.definitions:
                if d >= first:
                    self._send(taken[d], digest, about)
            unfound = self._begin_later(scratch, taken)
            for d in self._work.definitions:
                if unfound is not None and d in unfound.pairs:
                    self._send(Taken(scratch, d, self._folder), f"{digest}+{unfound.end - self._work.since}", about)
                elif d < first:
                    self._send(taken[d], digest, about)
        finally:
            scratch.close()
            if self._later is not None:
                self._later.close()

    def _scratch(self, name: str) -> Scratch:
        return Scratch(self._folder / name, self._set, *self._spans_s)

    def _named(self, names: list[str]) -> None:
        """Names that the stream has not told: those of a log that was not sent, and what functions of new definitions made."""
        if self._history.sent:
            functions = tuple(f"{self._set.all[d].name}=" for d in self._work.definitions if self._set.all[d].function is not None)
            names = [name for name in names if functions and name.startswith(functions)]
        if names:
            self._service.names(names)

    def _mortal(self, d: int) -> bool:
        return may_die(self._set, d) and (self._set.all[d].ttl_ms < float("inf") or self._spans_s[1] > 0)

    def _begin_later(self, scratch: Scratch, taken: dict[int, Taken]) -> Unfound | None:
        """Fold the stream behind the past, where a time to live may have ended a state of the past, or the service did not find the rows
        of pairs because an attribute is as new as they are: then their states are those of `scratch`."""
        told, since = self._service.backfills(), self._work.since
        notes = {a: told["definitions"][self._set.all[a].identity] for a in self._set.attributes}
        new = {a: (taken[a], note["backfill"]["at"]) for a, note in notes.items() if note["since"] == since and state_of(note) == "done"}
        columns = {self._set.all[a].value for a in new}
        mine = [d for d in self._work.definitions if d < len(self._set.definitions)]
        pairs = [d for d in mine if not self._mortal(d) and columns & set(self._set.all[d].entity)]
        mortal = [self._set.all[d].identity for d in mine if self._mortal(d)]
        unfound = Unfound(self._set, since, pairs, new)
        pairs = pairs if unfound.end > since else []
        if told["sequence"] == since or not (pairs or mortal):
            return None
        if not self._history.later(since):
            if self._partial and not mortal:
                return None
            said = ", ".join(mortal or [self._set.all[d].identity for d in pairs])
            raise FeatureBackfillError(f"{said}: what of the past goes on in rows is told by the events from {since:,} on, which are gone"
                                       " from the topics (kafka.retention_ms); --feature chooses others, --partial goes on with those"
                                       " that have no ttl (features.idle_s is one of all)")
        self._tell("the events since are folded")
        self._later = Later(scratch, self._scratch("since"), since, self._history.later, unfound,
                            [taken[a] for a, note in notes.items() if note["since"] in range(since)])
        until = time.monotonic() + WAIT_S
        self._later.advance()
        while pairs and self._later.at < unfound.end:
            if time.monotonic() > until:
                raise FeatureBackfillError(f"enriched has {self._later.at:,} events, and {unfound.end:,} were folded when the columns of"
                                           " items and users were put in: run the features job, then the backfill again, which goes on"
                                           " where it was")
            time.sleep(PAUSE_S)
            self._later.advance()
        return unfound if pairs else None

    def _send(self, taken: Taken, digest: str, about: dict[str, Any]) -> None:
        before = self._work.since if self._history.sent else -1
        for number in range(taken.parts):
            part, until = taken.part(number, digest, before, about), time.monotonic() + WAIT_S
            while self._service.merge_states(self._reached(taken.d, part)).get("unsure"):
                if time.monotonic() > until:
                    raise FeatureBackfillError(f"{taken.identity}: the stream's event time goes on by more than its ttl while it is read;"
                                               " run the backfill again when the stream is slower: it goes on where it was")
                time.sleep(PAUSE_S)
                assert self._later is not None, "only what has a time to live is unsure"
                self._later.advance()
            self._tell(f"{taken.identity}: part {number + 1} of {taken.parts}")

    def _reached(self, d: int, part: Part) -> Part:
        return self._later.reached(d, part) if self._later is not None and self._mortal(d) else part
