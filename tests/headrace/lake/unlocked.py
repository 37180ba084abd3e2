"""An object store in memory for the tests of the lake, whose every request is a step at which a process is killed or stands still."""

from __future__ import annotations

import threading
import uuid

from fsspec.implementations.memory import MemoryFileSystem

from headrace.lake.objects import Objects
from tests.headrace.lake.test_exactly_once import Killed

WAIT_S = 60.0


class Requests:
    """A file system of fsspec; `step` is called before each request, which is as well when the answer of the one before is on its way."""

    def __init__(self, step):
        self._files, self._step = MemoryFileSystem(), step

    def __getattr__(self, name):
        asked = getattr(self._files, name)

        def request(*given, **named):
            self._step()
            return asked(*given, **named)

        return request


def new_root():
    return f"lakes/{uuid.uuid4().hex}"


def store(root, step=lambda: None):
    return Objects(Requests(step), root, f"memory {root}")


def dying(root, steps):
    """Killed at its `steps`-th step, counted from 0."""
    left = iter(range(steps, -1, -1))

    def step():
        if next(left, 1) == 0:
            raise Killed

    return store(root, step)


class Paused:
    """`work(store)` in a thread, that stands still at its `steps`-th step until `go_on`; `ended`: it did not get so far."""

    def __init__(self, root, steps, work):
        self._left, self._here, self._on = steps, threading.Event(), threading.Event()
        self.error, self.result, self._work = None, None, work
        self._thread = threading.Thread(target=self._run, args=(root,), daemon=True)
        self._thread.start()
        assert self._here.wait(WAIT_S)

    @property
    def ended(self):
        return not self._thread.is_alive()

    def go_on(self):
        """What it raised is in `error`, what it returned in `result`."""
        self._on.set()
        self._thread.join(WAIT_S)
        assert self.ended
        return self.error

    def _run(self, root):
        try:
            self.result = self._work(store(root, self._step))
        except Exception as error:
            self.error = error
        self._here.set()

    def _step(self):
        self._left -= 1
        if self._left == -1:
            self._here.set()
            assert self._on.wait(WAIT_S)
