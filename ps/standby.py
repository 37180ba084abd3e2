"""The standby's side: it follows the owner's log into a folder of its own, and owns the shard when the owner is silent.

What it follows it logs, then applies as a recovery does; what it says it has, it has logged. It takes over by a claim in the owners' log
(ps/owners.py), under a higher epoch; the member that it takes over from is fenced off by that, however late it hears of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.ps import log as shard_log
from headrace.ps import snapshot
from headrace.ps.lineage import Begun, Lineage
from headrace.ps.log import LogError
from headrace.ps.owners import Owner, Owners
from headrace.ps.recovery import Store
from headrace.ps.spec import ModelSpec
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError, Unavailable
from headrace.rpc.message import Arrays, Header
from headrace.rpc.owner import Owner as Turns

logger = logging.getLogger(__name__)
FOLLOWS, BEHIND, OTHER_SPECS, STANDS_BY = "follows", "behind", "other_specs", "stands_by"
PART_BYTES = 1 << 22
WAIT_S, PAUSE_S, FORGET_S = 0.5, 0.1, 1.0


class NeedsCopy(Exception):
    """What this member holds is no beginning of the owner's log: it begins anew from a copy of the owner's snapshot, by itself."""


class Place(NamedTuple):
    """This member, the other one's name and address ("" before it is known)."""

    member: str
    other: str
    address: str


def digest_of(specs: Iterable[ModelSpec]) -> str:
    """By which two members know that they hold the same tables."""
    return hashlib.sha256(json.dumps([spec.to_dict() for spec in specs], sort_keys=True).encode()).hexdigest()


def owns(lineage: Lineage, state: Owner | None, member: str, first: bool, sequence: int) -> bool:
    """Whether a member that starts may claim the shard: nobody ever has, or its folder was made by a person, and it is the `first`; or it
    was the owner and its folder is what that owner wrote; or a person has said that it is to be."""
    lineage.keep_what_is_so(state)
    if state is None or lineage.made:
        return first
    return state.member == member and (state.forced or lineage.epoch_at(sequence) == state.epoch)


def claim(owners: Owners, lineage: Lineage, store: Store, member: str, in_sync: bool, took_over: bool) -> Owner | None:
    """Own the shard under a new epoch, from the sequence that `store` is at; None when another member was faster. In the shard's turn, or
    before it has begun. Raises Unavailable."""
    shard, state = store.shard, owners.now()
    owner = Owner(max(shard.epoch, state.epoch + 1 if state is not None else 0), member, in_sync and not lineage.made, lineage.made)
    before, superseding = lineage.begun, lineage.superseding or took_over
    # Before the claim: an owner that dies right after it must know its own log again.
    lineage.write([*before, Begun(owner.epoch, shard.sequence, member)], superseding, lineage.made)
    if not owners.say(owner):
        lineage.keep_what_is_so(owners.now())
        return None
    if lineage.made:
        lineage.write(lineage.begun, superseding)
    shard.epoch, shard.superseding = owner.epoch, superseding
    return owner


class Follower:
    """Follows the member at `place.address` into `store`, whose shard others touch only in `turns`' turn."""

    def __init__(self, place: Place, store: Store, turns: Turns, owners: Owners, lineage: Lineage, takeover_s: float,
                 durable: bool) -> None:
        self.place, self._store, self._turns, self._owners, self._lineage = place, store, turns, owners, lineage
        self._takeover_s, self._durable = takeover_s, durable
        self._client = Client(place.address, max(4 * WAIT_S, 2.0))
        self._digest = digest_of(store.shard.specs.values())
        self.heard, self.following, self.trouble = time.monotonic(), False, ""
        self._forgot = 0.0

    def run(self, stop: threading.Event) -> Owner | None:
        """Follow until the owner is silent for `takeover_s` and the claim is taken: what is owned then. None once `stop` is set.

        Raises NeedsCopy."""
        try:
            while not stop.is_set():
                try:
                    self._follow()
                except (RpcError, OSError) as error:
                    self._trouble(str(error))
                    stop.wait(PAUSE_S)
                if time.monotonic() - self.heard > self._takeover_s and not stop.is_set():
                    owner = self._take_over()
                    if owner is not None:
                        return owner
                    self.heard = time.monotonic()
            return None
        finally:
            self._client.close()

    def _follow(self) -> None:
        """One question to the owner. Raises NeedsCopy, RpcError, OSError."""
        shard = self._store.shard
        after = shard.sequence
        header, arrays = self._client.call("follow", {"after": after, "epoch": self._lineage.epoch_at(after), "member": self.place.member,
                                                      "specs": self._digest})
        status = header["status"]
        if status == BEHIND:
            raise NeedsCopy(f"{self.place.member} at {after} is no beginning of {self.place.other} at {header['sequence']}")
        if status == OTHER_SPECS:
            self.heard = time.monotonic()
            raise Unavailable(f"{self.place.other} holds other tables: start both members with one configuration")
        if status == STANDS_BY:
            raise Unavailable(f"{self.place.other} stands by too")
        self.heard, self.trouble = time.monotonic(), ""
        begun = [Begun(*one) for one in header["begun"]]
        if begun != self._lineage.begun:
            self._lineage.write(begun, False)
        if len(arrays["frames"]):
            self._turns.call(lambda: self._apply(arrays["frames"], after))
            if self._durable and shard.log is not None:
                shard.log.commit(shard.sequence)
        shard.epoch = header["epoch"]
        self.following = shard.sequence >= header["sequence"]
        if time.monotonic() - self._forgot > FORGET_S:
            self._turns.call(shard.forget_changes)
            self._forgot = time.monotonic()

    def _apply(self, data: np.ndarray, after: int) -> None:
        shard = self._store.shard
        assert shard.log is not None, "the log comes from recovery"
        raw = memoryview(np.ascontiguousarray(data)).cast("B")
        try:
            records = list(shard_log.frames(raw, after))
        except LogError as error:
            raise Unavailable(str(error)) from None
        shard.log.append_frames(records[-1].sequence, raw)
        shard.follow(records)

    def _take_over(self) -> Owner | None:
        """Claim the shard of an owner that is silent; None when that may not be, now."""
        try:
            state = self._owners.now()
            # The shard may be this member's already: by a person's word, or by a claim of ours whose answer was lost.
            mine = state is not None and state.member == self.place.member and (
                state.forced or self._lineage.epoch_at(self._store.shard.sequence) == state.epoch)
            if not mine and (state is None or state.member == self.place.member or not state.in_sync):
                self._trouble(f"{self.place.other} is silent, and this member may lack what it has acknowledged: `headrace ps promote`"
                              " makes it the owner all the same")
                return None
            silent_s = time.monotonic() - self.heard
            owner = self._turns.call(lambda: claim(self._owners, self._lineage, self._store, self.place.member, False, True))
        except Unavailable as error:
            self._trouble(f"{self.place.other} is silent, and the owners' log cannot be reached: {error}")
            return None
        if owner is not None:
            logger.warning("%s owns shard %s under epoch %d: %s was silent for %.1f s", self.place.member, self._owners.shard, owner.epoch,
                           self.place.other, silent_s)
        return owner

    def _trouble(self, why: str) -> None:
        if why != self.trouble:
            logger.warning("%s", why)
        self.trouble, self.following = why, False


def copy_of_owner(client: Client, folder: Path, say: Callable[[str], Any]) -> int:
    """Make the shard's `folder`, which is not open, from the owner's newest snapshot; its sequence. 0 and an empty folder when it has none:
    then its log reaches back to the beginning. What was there is kept beside as .before-copy. Raises RpcError, OSError."""
    listed, _ = client.call("copy", {})
    work, kept = folder.with_name(f"{folder.name}.being-copied"), folder.with_name(f"{folder.name}.before-copy")
    shutil.rmtree(work, ignore_errors=True)
    (work / "log").mkdir(parents=True)
    sequence = int(listed["sequence"])
    if sequence:
        target = work / "snapshots" / f"{sequence:020d}"
        target.mkdir(parents=True)
        for name, size in listed["files"]:
            _fetch(client, sequence, name, size, target / name)
        if snapshot.read(target).sequence != sequence:  # every sha256 is checked by that
            raise OSError(f"the copy of {client.address} is not of sequence {sequence}")
    (work / "spec.json").write_text(listed["spec"])
    Lineage(work).write([Begun(*one) for one in listed["begun"]], False)
    shutil.rmtree(kept, ignore_errors=True)
    if folder.exists():
        folder.rename(kept)
    work.rename(folder)
    say(f"begins from {client.address}'s snapshot at sequence {sequence:,}")
    return sequence


def _fetch(client: Client, sequence: int, name: str, size: int, target: Path) -> None:
    with open(target, "wb") as out:
        while out.tell() < size:
            _, arrays = client.call("copy", {"sequence": sequence, "name": name, "at": out.tell()})
            if not len(arrays["part"]):
                raise OSError(f"{name} of {client.address} ends at {out.tell()} of {size} bytes")
            out.write(arrays["part"].tobytes())


def copy_answer(store: Store, lineage: Lineage, header: Header) -> tuple[Header, Arrays]:
    """The verb `copy`: what the newest snapshot consists of, or a part of a file of it. Raises Unavailable when that has given way."""
    folder = store.folder / "snapshots"
    if "name" not in header:
        held = snapshot.folders(folder)
        sequence, path = held[-1] if held else (0, folder)
        files = [[file.name, file.stat().st_size] for file in sorted(path.iterdir()) if file.is_file()] if held else []
        begun = [list(one) for one in lineage.begun]
        return {"sequence": sequence, "files": files, "spec": (store.folder / "spec.json").read_text(), "begun": begun}, {}
    path = folder / f"{int(header['sequence']):020d}" / Path(str(header["name"])).name
    try:
        with open(path, "rb") as file:
            file.seek(int(header["at"]))
            return {}, {"part": np.frombuffer(file.read(PART_BYTES), np.uint8)}
    except OSError as error:
        raise Unavailable(f"that snapshot has given way to a newer one: {error}") from None
