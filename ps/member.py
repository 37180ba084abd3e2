"""One of the two members of a shard that has a standby: it owns the shard and serves it, or follows the other one until that is silent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.ps.duty import Duty
from headrace.ps.lineage import Lineage
from headrace.ps.log import LogError, Tail
from headrace.ps.owners import Owner, Owners
from headrace.ps.recovery import Store
from headrace.ps.snapshot import SnapshotError
from headrace.ps.spec import SpecError
from headrace.ps.standby import (
    BEHIND,
    FOLLOWS,
    OTHER_SPECS,
    STANDS_BY,
    WAIT_S,
    Follower,
    NeedsCopy,
    Place,
    claim,
    copy_answer,
    copy_of_owner,
    digest_of,
    owns,
)
from headrace.rpc.client import Client
from headrace.rpc.errors import BadMessage, RpcError, Unavailable
from headrace.rpc.message import Arrays, Header
from headrace.rpc.owner import Owner as Turns
from headrace.rpc.server import Later, Verb

logger = logging.getLogger(__name__)
FRAMES_BYTES = 1 << 22
ASK_S = 3.0


class Terms(NamedTuple):
    """`acknowledge_s`: how long a push waits for the standby before the shard goes on alone; `takeover_s`: of silence, after which the
    standby owns the shard; `durable`: the standby says that it has what its disk has."""

    acknowledge_s: float = 1.0
    takeover_s: float = 3.0
    durable: bool = False


class Opened(NamedTuple):
    """A member's folder; `owner`: what it owns the shard as, None when it follows."""

    store: Store
    lineage: Lineage
    owner: Owner | None


def opened(folder: Path, store_of: Callable[[], Store], place: Place, first: bool, owners: Owners) -> Opened:
    """Open `folder` as the owner, if it was or nobody is, or to follow; from a copy of the owner's snapshot where what is there is no
    beginning of the owner's log, or damaged. Raises Unavailable while the owners' log cannot be reached, and what ps/recovery.py raises."""
    state = owners.now()
    client = Client(place.address, ASK_S)
    try:
        try:
            store = store_of()
        except (LogError, SnapshotError, SpecError) as error:
            if state is None or state.member == place.member:
                raise
            logger.error("%s; a copy of %s takes its place", error, place.other)
            _copied(client, folder)
            store = store_of()
        lineage = Lineage(folder)
        if owns(lineage, state, place.member, first, store.shard.sequence) and not _other_is_ahead(client, state, store):
            followed = state is not None and state.forced  # until now: what it has not published it does not know
            owner = claim(owners, lineage, store, place.member, state is not None and state.in_sync, followed)
            if owner is not None:
                return Opened(store, lineage, owner)
        if _behind(client, store, lineage, place):
            store.close()
            _copied(client, folder)
            store, lineage = store_of(), Lineage(folder)
        return Opened(store, lineage, None)
    finally:
        client.close()


def _other_is_ahead(client: Client, state: Owner | None, store: Store) -> bool:
    """Whether a standby in sync has more than this owner, whose disk has lost the end of its log: then it is to take over."""
    if state is None or not state.in_sync:
        return False
    try:
        told, _ = client.call("stats")
    except RpcError:
        return False
    return bool(told["sequence"] > store.shard.sequence and told.get("lineage_epoch") == state.epoch)


def _behind(client: Client, store: Store, lineage: Lineage, place: Place) -> bool:
    at = store.shard.sequence
    asked = {"after": at, "epoch": lineage.epoch_at(at), "member": place.member, "specs": "", "wait_s": 0.0}
    try:
        return client.call("follow", asked)[0]["status"] == BEHIND
    except RpcError:
        return False  # it says so when it is there


def _copied(client: Client, folder: Path) -> None:
    try:
        copy_of_owner(client, folder, lambda text: logger.info("%s %s", folder.name, text))
    except (RpcError, ValueError) as error:
        raise OSError(f"{folder} needs a copy of its owner at {client.address}, which cannot be had: {error}") from None


class Member:
    """Serves what `opened` found. `ended(why)` is told once when this process is to start anew: it was fenced off, or needs a copy."""

    def __init__(self, found: Opened, place: Place, turns: Turns, owners: Owners, terms: Terms, ended: Callable[[str], Any]) -> None:
        self.store, self.lineage, self.place, self.terms = found.store, found.lineage, place, terms
        self._turns, self._owners, self._ended = turns, owners, ended
        self._tail = Tail(found.store.folder / "log")
        self._tailing = threading.Lock()
        self._digest = digest_of(found.store.shard.specs.values())
        self.duty = self._duty(found.owner) if found.owner is not None else None
        self.follower = None if self.duty else Follower(place, found.store, turns, owners, found.lineage, terms.takeover_s, terms.durable)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standby", daemon=True)

    @property
    def owns(self) -> bool:
        return self.duty is not None and not self.duty.over

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Before the server ends: from here on nothing is answered."""
        self._stop.set()
        if self.duty is not None:
            self.duty.end(f"{self.place.member} stops")
        self._thread.join(10)

    def missing(self) -> str:
        """"" when it serves, or follows and has what its owner has; else what is amiss."""
        if self.owns or self.follower is None:
            return self.duty.over if self.duty is not None else ""
        return "" if self.follower.following else self.follower.trouble or f"it has not caught up with {self.place.other} yet"

    def told(self) -> Header:
        """What `stats` says of it."""
        duty, end = self.duty, self.store.shard.sequence
        said: Header = {"member": self.place.member, "owns": self.owns, "lineage_epoch": self.lineage.epoch_at(end)}
        if duty is not None:
            said |= {"in_sync": duty.owner.in_sync, "standby_behind": end - duty.acked if duty.acked >= 0 else -1, "alone": duty.alone}
        return said | {"missing": self.missing()}

    def acknowledged(self, sequence: int) -> None:
        """Before a push is answered. Raises Unavailable."""
        if self.duty is not None:
            self.duty.wait(sequence)

    def superseded(self) -> None:
        """Replicas have been told to fetch everything anew."""
        self.lineage.write(self.lineage.begun, False)

    def verbs(self, served: Mapping[str, Verb]) -> dict[str, Verb]:
        """`served` while this member owns the shard, and what the other member asks."""
        guarded = {name: self._guard(verb) for name, verb in served.items() if name != "stats"}

        def stats(header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
            told, more = served["stats"](header, arrays)[:2]
            return {**told, **self.told()}, more

        def copy(header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
            if not self.owns:
                raise Unavailable(f"{self.place.member} stands by: its snapshot is not the shard's")
            return copy_answer(self.store, self.lineage, header)

        return {**guarded, "stats": stats, "follow": self._follow, "copy": copy}

    def _guard(self, verb: Verb) -> Verb:
        def guarded(header: Header, arrays: Arrays) -> tuple[Header, Arrays] | Later:
            if not self.owns:
                raise Unavailable(f"{self.place.member} stands by for {self.place.other}, and serves when that is silent")
            return verb(header, arrays)

        return guarded

    def _follow(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays] | Later:
        """{after, epoch, member, specs} -> {status, sequence, epoch, begun} and the log's frames behind `after`, which the caller has."""
        after, epoch, wait_s = header.get("after"), header.get("epoch"), header.get("wait_s", WAIT_S)
        if not isinstance(after, int) or not isinstance(epoch, int) or not isinstance(wait_s, int | float) or after < 0:
            raise BadMessage("follow has after, epoch and wait_s, numbers")
        shard, duty, nothing = self.store.shard, self.duty, np.zeros(0, np.uint8)
        begun = [list(one) for one in self.lineage.begun]
        told: Header = {"status": FOLLOWS, "sequence": shard.sequence, "epoch": shard.epoch, "begun": begun}
        if duty is None or duty.over:
            return {**told, "status": STANDS_BY}, {}
        if header.get("specs") not in ("", self._digest):
            return {**told, "status": OTHER_SPECS}, {}
        if not self.lineage.holds(epoch, after, shard.sequence):
            return {**told, "status": BEHIND}, {}
        found: Arrays = {"frames": nothing}

        def then() -> None:
            if header.get("specs"):
                duty.hear(after)
            end = duty.await_more(after, float(min(wait_s, ASK_S)))
            with self._tailing:
                data = self._tail.read(after, end, FRAMES_BYTES)
            if data is None:
                told["status"] = BEHIND
            elif data:
                found["frames"] = np.frombuffer(data, np.uint8)
            told["sequence"] = end

        return Later(told, found, then)

    def _duty(self, owner: Owner) -> Duty:
        return Duty(self._owners, owner, lambda: self.store.shard.sequence, self.terms.acknowledge_s, self._ended)

    def _run(self) -> None:
        """Follow, then own; an owner that has not heard of its standby looks whether it still is one."""
        try:
            if self.follower is not None:
                owner = self.follower.run(self._stop)
                if owner is None:
                    return
                self._turns.call(lambda: setattr(self, "duty", self._duty(owner)))
            while not self._stop.wait(self.terms.takeover_s / 2):
                if self.duty is not None and not self.duty.over:
                    self.duty.check()
        except (NeedsCopy, Unavailable) as error:
            if not self._stop.is_set():
                self._ended(str(error))
        except Exception:
            logger.exception("standing by failed")
            self._ended("standing by failed; the log has the cause")
