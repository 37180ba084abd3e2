"""The owner of a table, a store or an index: whatever touches it does so in its turn, one after another in the order of arrival.

Flight answers each stream on a thread of its own. A verb runs right there, while its thread has the turn: handing it to another thread
and waiting for that one costs two wake-ups a call. Timed work (publish, snapshot) takes turns like any caller, on the owner's own thread.
"""

from __future__ import annotations

import collections
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from headrace.rpc.errors import Unavailable

log = logging.getLogger(__name__)
STOP_S = 30.0


class _Turns:
    """A lock that is had in the order in which it was asked for (a threading.Lock goes to anyone, and can starve the timed work)."""

    def __init__(self) -> None:
        self._inside = threading.Lock()
        self._taken = False
        self._waiting: collections.deque[threading.Lock] = collections.deque()

    def enter(self, timeout_s: float = -1) -> bool:
        """False when the time is up. Then the place is kept, and nobody behind it comes in: only for a caller that ends all."""
        with self._inside:
            if not self._taken:
                self._taken = True
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        return gate.acquire(timeout=timeout_s)

    def leave(self) -> None:
        with self._inside:
            if self._waiting:
                self._waiting.popleft().release()  # still taken: by the next one
            else:
                self._taken = False


class Owner:
    """Runs callables one after another; `every` adds timed ones. What is asked for before `start` waits for it."""

    def __init__(self, name: str = "owner") -> None:
        self.name = name
        self._turns = _Turns()
        self._turns.enter()
        self._started = self._stopping = self._stopped = False
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._timed: list[list[Any]] = []  # [due, seconds, callable]
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def every(self, seconds: float, work: Callable[[], Any]) -> None:
        """Call `work` about every `seconds`, on the owner's thread; a failure is logged and does not stop it. Before `start`."""
        self._timed.append([time.monotonic() + seconds, seconds, work])

    def start(self) -> None:
        self._started = True
        self._thread.start()
        self._turns.leave()

    def call(self, work: Callable[[], Any]) -> Any:
        """Run `work` on this thread once its turn has come; what it returns or raises. Raises Unavailable once `stop` was called.

        Not from within work that has the turn: it would wait for itself.
        """
        if self._stopping:
            raise Unavailable(f"{self.name} has stopped")
        return self._in_turn(work)

    def give_way(self) -> None:
        """Within work that has the turn: let those who wait have theirs first. Raises Unavailable when it has stopped meanwhile."""
        self._turns.leave()
        self._turns.enter()
        if self._stopped:
            raise Unavailable(f"{self.name} has stopped")

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Like `call`, on the owner's thread, in the order of submission and without waiting for it."""
        if self._stopping:
            raise Unavailable(f"{self.name} has stopped")
        future: Future[Any] = Future()
        self._queue.put((future, work))
        return future

    def stop(self) -> None:
        """Finish what waits, then end."""
        if self._stopping or not self._started:
            self._stopping = True
            return
        self._stopping = True
        self._queue.put(None)
        self._thread.join(STOP_S)
        if self._turns.enter(STOP_S):
            self._stopped = True  # for a caller that was between its question and its place in the row
            self._turns.leave()

    def _in_turn(self, work: Callable[[], Any]) -> Any:
        self._turns.enter()
        try:
            if self._stopped:
                raise Unavailable(f"{self.name} has stopped")
            return work()
        finally:
            self._turns.leave()

    def _run(self) -> None:
        while True:
            wait = min((due for due, _, _ in self._timed), default=time.monotonic() + 60) - time.monotonic()
            try:
                item = self._queue.get(timeout=max(wait, 0.0005))
                if item is None:
                    return
                future, work = item
                try:
                    future.set_result(self._in_turn(work))
                except BaseException as error:
                    future.set_exception(error)
            except queue.Empty:
                pass
            now = time.monotonic()
            for entry in self._timed:
                if entry[0] <= now:
                    try:
                        self._in_turn(entry[2])
                    except Exception:
                        log.exception("timed work %s failed", entry[2])
                    entry[0] = time.monotonic() + entry[1]
