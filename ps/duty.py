"""The owner's side of a standby: a push is answered when the standby has it, or when everybody can know that the standby lacks it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from headrace.ps.owners import Owner, Owners
from headrace.rpc.errors import Unavailable

log = logging.getLogger(__name__)


class Duty:
    """Of the owner of a shard under `owner.epoch`, whose log ends at `sequence()`. `acknowledge_s`: how long a push waits for the standby
    before the shard goes on without it, which the owners' log must take first. `fenced(why)` is told once when another member owns it."""

    def __init__(self, owners: Owners, owner: Owner, sequence: Callable[[], int], acknowledge_s: float,
                 fenced: Callable[[str], Any]) -> None:
        self._owners, self.owner, self._sequence = owners, owner, sequence
        self._acknowledge_s, self._fenced = acknowledge_s, fenced
        self._changed = threading.Condition()
        self._asking = threading.Lock()  # of the owners' log
        self._waits = owner.in_sync  # pushes wait for the standby
        self._join_at = -1  # a standby that says it has this is in sync
        self._unsure = False  # it was said to be in sync, and nobody answered: the log may have it
        self.acked, self.heard = -1, time.monotonic()
        self.alone = 0  # how often the shard went on without its standby
        self.over = ""  # why this member owns the shard no more

    def wait(self, sequence: int) -> None:
        """Before a push up to `sequence` is answered. Raises Unavailable when it cannot be known to be safe: the caller asks again."""
        with self._changed:
            self._changed.notify_all()  # who follows waits for what has come
            if not self._waits and not self.over:
                return
            self._changed.wait_for(lambda: self.acked >= sequence or not self._waits or bool(self.over), self._acknowledge_s)
            if self.over:
                raise Unavailable(self.over)
            if self.acked >= sequence or not self._waits:
                return
        self._go_on_alone(sequence)

    def hear(self, after: int) -> None:
        """The standby has everything up to `after`."""
        with self._changed:
            self.acked, self.heard = max(self.acked, after), time.monotonic()
            self._changed.notify_all()
            if self.owner.in_sync or self.over:
                return
            if self._join_at < 0 or not self._waits:
                end = self._sequence()
                if after >= end - 1024:  # near enough that pushes may begin to wait for it
                    self._waits, self._join_at = True, end
            joins = self._waits and after >= self._join_at
        if joins:
            self._note_in_sync()

    def end(self, why: str) -> None:
        """Answer no push any more: an owner that stops would go on alone when its standby's questions end, and leave it behind."""
        with self._changed:
            self.over = self.over or why
            self._changed.notify_all()

    def check(self) -> None:
        """For a timer: whether this member still owns the shard. Nothing while the owners' log cannot be reached: then nothing is answered
        that the standby lacks."""
        with self._asking:
            try:
                self._see(self._owners.now())
            except Unavailable as error:
                log.warning("who owns the shard cannot be seen now: %s", error)

    def await_more(self, after: int, wait_s: float) -> int:
        """The log's end, once it is beyond `after` or `wait_s` are over."""
        with self._changed:
            self._changed.wait_for(lambda: self._sequence() > after or bool(self.over), wait_s)
        return self._sequence()

    def _go_on_alone(self, sequence: int) -> None:
        with self._asking:
            with self._changed:
                if self.over:
                    raise Unavailable(self.over)
                if self.acked >= sequence or not self._waits:
                    return  # it came, or another push has done this
            if self.owner.in_sync or self._unsure:
                self._say(self.owner._replace(in_sync=False))
            with self._changed:
                self._waits, self._join_at, self.alone = False, -1, self.alone + 1
                self._changed.notify_all()
        log.warning("shard %s goes on without its standby, which has not acknowledged %d within %g s", self._owners.shard, sequence,
                    self._acknowledge_s)

    def _note_in_sync(self) -> None:
        with self._asking:
            if self.owner.in_sync or self.over or not self._waits:
                return
            self._unsure = True
            try:
                self._say(self.owner._replace(in_sync=True))
            except Unavailable as error:
                log.warning("that the standby is in sync could not be said: %s", error)
                return
        log.info("the standby of shard %s is in sync", self._owners.shard)

    def _say(self, owner: Owner) -> None:
        if not self._owners.say(owner):
            self._see(self._owners.now())
            raise Unavailable(self.over or "the owners' log did not take what the shard's owner said")
        with self._changed:
            self.owner, self._unsure = owner, False

    def _see(self, state: Owner | None) -> None:
        if state is not None and (state.epoch, state.member) != (self.owner.epoch, self.owner.member) and not self.over:
            with self._changed:
                self.over = f"{state.member} owns shard {self._owners.shard} since epoch {state.epoch}: {self.owner.member} is fenced off"
                self._changed.notify_all()
            log.error("%s", self.over)
            self._fenced(self.over)
