"""Published versions over the processes that serve: published once, chosen for all replicas or none, and what became of each as events.

A change has two steps. Every replica that answers is asked to prepare the version: to load and check it, while it serves on. When one says
no, nothing has changed. When all have, the choice is written to ROOT/serving.json and synced: from then on it is made, whoever dies, for a
replica that starts serves what stands there or nothing, and one that runs looks there by itself. Telling each of them is what makes it
quick. So a replica that dies between the two steps comes back with the new version, and a coordinator that dies between them has changed
nothing, or everything. A replica that does not answer at all is not waited for: it serves nobody, and comes back the same way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headrace.ps import versions
from headrace.ps.spec import ModelSpec
from headrace.ps.versions import LIVE, Choice, Version, VersionError
from headrace.rpc.errors import RpcError, Unavailable

EVENTS = "events.jsonl"
PERSON, GUARD = "person", "guard"


class Caller(Protocol):
    """rpc.client.Client."""

    @property
    def address(self) -> str: ...

    def call(self, verb: str, header: Mapping[str, Any] | None = None,
             arrays: Mapping[str, np.ndarray] | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]: ...


class VersionUnknown(Exception):
    """What was asked for is no version that there is: `headrace models list`."""


class NotServed(Exception):
    """Replicas could not take a version, and none of them has: the message says which, and why."""


@dataclass(frozen=True)
class Changed:
    """A choice that was made; `absent`: replicas that did not answer, and will serve it when they come back."""

    choice: Choice
    before: int
    absent: list[str]


class Versions:
    """Those of `spec`'s model under FOLDER (DATA_DIR/versions), and the `replicas` that serve it. Any process may hold one; a lock in the
    folder puts changes in order."""

    def __init__(self, folder: Path, spec: ModelSpec, replicas: Sequence[Caller], now_ms: Callable[[], int]) -> None:
        self.folder, self.root, self.spec = folder, folder / spec.model, versions.served_of(spec)
        self._replicas, self._now_ms = replicas, now_ms

    def publish(self, shards: Iterable[Caller], by: str, note: str = "", metrics: Mapping[str, Any] | None = None) -> Version:
        """Write the next version, of a snapshot that each training shard makes now and that lies on this machine. Raises VersionError, the
        errors of rpc/errors.py, OSError."""
        with versions.changing(self.root):
            cuts = []
            for shard in shards:
                path = Path(shard.call("snapshot")[0]["path"])
                if not path.is_dir():
                    raise VersionError(f"{shard.address} made its snapshot {path}, which is not on this machine: publish where its shards"
                                       " are")
                cuts.append(versions.cut_of(path, self.spec, _slots(shard)))
            made = versions.write(self.root, self.spec, cuts, self._now_ms(), by, note, metrics)
            self.note("published", by, note, made.number, metrics)
            return made

    def serve(self, number: int, by: str, reason: str, pinned: bool = False,
              figures: Mapping[str, Any] | None = None) -> Changed:
        """Have every replica serve version `number` (0: live), or none; `figures` go into the event.

        Raises VersionUnknown, VersionError, NotServed, OSError.
        """
        if number != LIVE and number not in versions.numbers(self.root):
            raise VersionUnknown(f"there is no version {number} of {self.spec.model}; {self._known()}")
        with versions.changing(self.root):
            before = self._chosen()
            if number != LIVE:
                versions.about(self.root, number)
            absent = self._prepared(number)
            choice = Choice(number, before.turn + 1, pinned, by, reason, self._now_ms())
            versions.choose(self.root, choice)
            absent |= self._told(choice)
            self.note("serving", by, reason, number, {"before": before.version, "pinned": pinned, "turn": choice.turn,
                                                      "absent": sorted(absent), **(figures or {})})
            return Changed(choice, before.version, sorted(absent))

    def resume(self, by: str, reason: str) -> Choice:
        """The same version, no more pinned: the guard decides from here on. Raises VersionError, OSError."""
        with versions.changing(self.root):
            before = self.choice()
            choice = Choice(before.version, before.turn + 1, False, by, reason, self._now_ms())
            versions.choose(self.root, choice)
            self._told(choice)
            self.note("resumed", by, reason, choice.version)
            return choice

    def choice(self) -> Choice:
        """What is chosen. Raises VersionError."""
        return versions.chosen(self.root)

    def there(self) -> tuple[list[Version], dict[int, str]]:
        """The versions by their manifests, oldest first, and why others cannot be used."""
        found, broken = [], {}
        for number in versions.numbers(self.root):
            try:
                found.append(versions.about(self.root, number))
            except VersionError as error:
                broken[number] = str(error)
        return found, broken

    def back(self) -> int:
        """The newest version before the one that is served, or the newest when live is. Raises VersionUnknown when there is none."""
        serving = self._chosen().version
        older = [one.number for one in self.there()[0] if serving == LIVE or one.number < serving]
        if not older:
            raise VersionUnknown(f"no version of {self.spec.model} is older than the one that is served"
                                 f" ({'live' if serving == LIVE else serving}); {self._known()}")
        return older[-1]

    def remove(self, number: int, reason: str) -> None:
        """Drop a version that is not served. Raises VersionError, OSError."""
        with versions.changing(self.root):
            if self.choice().version == number:
                raise VersionError(f"version {number} is served: it stays")
            versions.remove(self.root, number)
            self.note("removed", GUARD, reason, number)

    def served(self) -> dict[str, dict[str, Any]]:
        """By replica: version, held, trouble; or the trouble that it does not answer."""
        found = {}
        for replica in self._replicas:
            try:
                said = replica.call("stats")[0]["models"].get(self.spec.model, {})
                found[replica.address] = {"version": said.get("serving", LIVE), "trouble": said.get("trouble", "")}
            except RpcError as error:
                found[replica.address] = {"version": None, "trouble": str(error)}
        return found

    def note(self, event: str, by: str, reason: str, version: int, figures: Mapping[str, Any] | None = None) -> None:
        """Add a line to events.jsonl, safely on the disk."""
        line = json.dumps({"at_ms": self._now_ms(), "model": self.spec.model, "event": event, "by": by, "version": version,
                           "reason": reason, "figures": dict(figures or {})})
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / EVENTS, "a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def events(self, most: int | None = None) -> list[dict[str, Any]]:
        """Those of the model, oldest first; the newest `most`. A line that a kill has torn is passed over."""
        try:
            lines = (self.folder / EVENTS).read_text().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                one = json.loads(line)
            except ValueError:
                continue
            if one.get("model") == self.spec.model:
                found.append(one)
        return found if most is None else found[-most:]

    def _chosen(self) -> Choice:
        """What is chosen; a file that is not readable is overruled, by a turn later than any before."""
        try:
            return self.choice()
        except VersionError:
            return Choice(turn=self._now_ms())

    def _prepared(self, number: int) -> set[str]:
        """Have each replica load the version; addresses of those that do not answer. Raises NotServed."""
        if number == LIVE:
            return set()
        absent: dict[str, str] = {}
        for replica in self._replicas:
            try:
                replica.call("prepare", {"model": self.spec.model, "version": number})
            except Unavailable as error:
                absent[replica.address] = str(error)
            except RpcError as error:
                raise NotServed(f"the replica {replica.address} cannot serve version {number}, so none does, and nothing has changed:"
                                f" {error}") from None
        if self._replicas and len(absent) == len(self._replicas):
            raise NotServed(f"no replica answers, so nothing has changed: {'; '.join(absent.values())}; `headrace status` shows what runs")
        return set(absent)

    def _told(self, choice: Choice) -> set[str]:
        """Tell each replica; addresses of those that were not reached, or had to be left to look by themselves."""
        late = set()
        for replica in self._replicas:
            try:
                replica.call("serve", {"model": self.spec.model, "choice": asdict(choice)})
            except RpcError:
                late.add(replica.address)
        return late

    def _known(self) -> str:
        found = versions.numbers(self.root)
        return f"there are {', '.join(map(str, found))}, and live" if found else "none was published: `headrace models publish` makes one"


def _slots(shard: Caller) -> tuple[int, int]:
    first, stop = shard.call("stats")[0]["slots"]
    return first, stop


def told(folder: Path, model: str) -> str:
    """What is served of a model, and why, as a sentence."""
    try:
        choice = versions.chosen(folder / model)
    except VersionError as error:
        return f"serving: {error}"
    if not choice.turn:
        return f"serving: live {model}; nothing else was ever chosen"
    at = datetime.fromtimestamp(choice.at_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    pinned = ", pinned (`headrace models resume` gives it to the guard)" if choice.pinned else ""
    return f"serving: {named(choice.version)} of {model}{pinned}; chosen by {choice.by} at {at} UTC: {choice.reason}"


def named(version: int) -> str:
    return "live" if version == LIVE else f"version {version}"
