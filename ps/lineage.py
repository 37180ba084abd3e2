"""Which history a member's log is of: the epochs under which it was written, each with the sequence that it began behind (Kafka's leader
epochs, KIP-101). FOLDER/member.json; a folder without it has never stood by."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from headrace.ps.owners import Owner

NAME = "member.json"
KEPT = 64


class Begun(NamedTuple):
    """From behind `sequence` on the log was written under `epoch`, by `member`."""

    epoch: int
    sequence: int
    member: str


class Lineage:
    """Of the shard in `folder`. `superseding`: this member took over, and has not told replicas yet to fetch everything anew. `made`: a
    person has put the folder there (a reshard, a copy that was restored), so that it is the shard whatever was before."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        body: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.begun = [Begun(*one) for one in body.get("begun", [])]
        self.superseding, self.made = bool(body.get("superseding", False)), bool(body.get("made", False))

    def epoch_at(self, sequence: int) -> int:
        """The epoch under which a log that ends at `sequence` was written, -1 when that is not known."""
        return max((one.epoch for one in self.begun if one.sequence <= sequence), default=-1)

    def holds(self, epoch: int, sequence: int, end: int) -> bool:
        """Whether a log that ends at `sequence` under `epoch` is a beginning of this one, which ends at `end`."""
        if epoch < 0:
            return sequence == 0
        later = [one.sequence for one in self.begun if one.epoch > epoch]
        return any(one.epoch == epoch for one in self.begun) and sequence <= min([*later, end])

    def keep_what_is_so(self, owner: Owner | None) -> None:
        """Drop what was begun and not taken: epochs beyond the owner's, and its epoch when another member has it."""
        if owner is not None:
            kept = [one for one in self.begun if one.epoch < owner.epoch or (one.epoch, one.member) == (owner.epoch, owner.member)]
            if kept != self.begun:
                self.write(kept, self.superseding, self.made)

    def write(self, begun: list[Begun], superseding: bool, made: bool = False) -> None:
        """Keep these; on the disk when this returns."""
        self.begun, self.superseding, self.made = begun[-KEPT:], superseding, made
        work = self._file.with_suffix(".writing")
        with open(work, "w") as file:
            file.write(json.dumps({"begun": self.begun, "superseding": superseding, "made": made}))
            file.flush()
            os.fsync(file.fileno())
        work.rename(self._file)


def made_by_a_person(folder: Path) -> None:
    """Say so of the folder of a shard that has just been made."""
    Lineage(folder).write([], True, made=True)


def owner_folder(folder: Path, index: int) -> Path:
    """Of shard `index` under `folder` (the parameter server's): the folder of the member that owned it last."""
    primary, standby = folder / str(index), folder / f"{index}-standby"
    if not standby.exists():
        return primary
    return max((primary, standby), key=lambda one: max((each.epoch for each in Lineage(one).begun), default=-1))
