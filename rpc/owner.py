"""The one thread that owns a table, a store or an index.

Flight answers each stream on a thread of its own; state is touched by the owner alone, in the order of arrival, so there are no
locks in the rooms. Timed work (publish, snapshot) runs on the same thread, between requests.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from headrace.rpc.errors import Unavailable

log = logging.getLogger(__name__)


class Owner:
    """Runs callables one after another on its thread; `every` adds timed ones."""

    def __init__(self, name: str = "owner") -> None:
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._stopped = False
        self._timed: list[list[Any]] = []  # [due, seconds, callable]
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def every(self, seconds: float, work: Callable[[], Any]) -> None:
        """Call `work` about every `seconds`, on the owner's thread; a failure is logged and does not stop it. Before `start`."""
        self._timed.append([time.monotonic() + seconds, seconds, work])

    def start(self) -> None:
        self._thread.start()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Raises Unavailable once `stop` was called."""
        if self._stopped:
            raise Unavailable(f"{self._thread.name} has stopped")
        future: Future[Any] = Future()
        self._queue.put((future, work))
        return future

    def call(self, work: Callable[[], Any]) -> Any:
        """Run `work` on the owner's thread and return what it returns, or raise what it raised."""
        return self.submit(work).result()

    def stop(self) -> None:
        """Finish what waits, then end."""
        self._stopped = True
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(30)

    def _run(self) -> None:
        while True:
            wait = min((due for due, _, _ in self._timed), default=time.monotonic() + 1) - time.monotonic()
            try:
                item = self._queue.get(timeout=max(wait, 0.0005))
                if item is None:
                    return
                future, work = item
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            except queue.Empty:
                pass
            now = time.monotonic()
            for entry in self._timed:
                if entry[0] <= now:
                    try:
                        entry[2]()
                    except Exception:
                        log.exception("timed work %s failed", entry[2])
                    entry[0] = time.monotonic() + entry[1]
