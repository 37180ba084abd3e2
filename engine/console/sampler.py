"""Slow look-ups on threads of their own, only while somebody looks; requests read what was found last."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from headrace.engine.console.figures import Point

log = logging.getLogger(__name__)
IDLE_S = 15.0
POINTS_MAX = 450  # a quarter of an hour at one look in two seconds

Look = Callable[[], tuple[Any, Point]]


class Away(Exception):
    """A source does not answer; the message is a sentence for people."""


class Reading(NamedTuple):
    """What a source said last, `value` (None before the first answer) as of `at_ms`, and why it does not say more now ("": it does)."""

    value: Any
    at_ms: int
    problem: str


NOTHING = Reading(None, 0, "")


class Sampler:
    """Asks each of `sources` every `every_s`, from a thread a source, so that one that hangs holds no other up.

    `watch` begins it. `idle_s` after the last one the threads end. Of each source the newest Reading is kept, and the points of the last
    `points_max` answers.
    """

    def __init__(self, sources: Mapping[str, Look], every_s: float = 2.0, idle_s: float = IDLE_S, points_max: int = POINTS_MAX) -> None:
        self._sources, self._every_s, self._idle_s = dict(sources), every_s, idle_s
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._watched = 0.0
        self._threads: dict[str, threading.Thread] = {}
        self._readings: dict[str, Reading] = dict.fromkeys(self._sources, NOTHING)
        self._points: dict[str, deque[tuple[int, Point]]] = {name: deque(maxlen=points_max) for name in self._sources}

    def watch(self) -> None:
        """Somebody looks: go on, or begin."""
        with self._lock:
            self._watched = time.monotonic()
            if self._stopped.is_set():
                return
            for name in self._sources:
                if name not in self._threads:
                    self._threads[name] = threading.Thread(target=self._work, args=(name,), name=f"console-{name}", daemon=True)
                    self._threads[name].start()

    def newest(self, name: str) -> Reading:
        """The last Reading of a source."""
        return self._readings[name]

    def points(self, name: str) -> list[tuple[int, Point]]:
        """(wall clock in ms, point) of the answers that are kept, oldest first."""
        with self._lock:
            return list(self._points[name])

    @property
    def awake(self) -> bool:
        """Whether anything is asked at present."""
        with self._lock:
            return bool(self._threads)

    def stop(self, wait_s: float = 2.0) -> None:
        """For good. A look that hangs is left behind."""
        self._stopped.set()
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(wait_s)

    def _work(self, name: str) -> None:
        while True:
            began = time.monotonic()
            self._look(name)
            self._stopped.wait(max(0.0, self._every_s - (time.monotonic() - began)))
            with self._lock:
                if self._stopped.is_set() or time.monotonic() - self._watched >= self._idle_s:
                    del self._threads[name]  # under the lock of `watch`, which begins a new one or sees this one
                    return

    def _look(self, name: str) -> None:
        problem = ""
        try:
            value, point = self._sources[name]()
        except Away as error:
            problem = str(error)
        except Exception:
            log.exception("the page's source %s failed", name)
            problem = f"A defect: the engine's log has the cause, under the page's source {name}."
        at_ms = time.time_ns() // 1_000_000
        with self._lock:
            if problem:
                self._readings[name] = self._readings[name]._replace(problem=problem)
            else:
                self._readings[name] = Reading(value, at_ms, "")
                self._points[name].append((at_ms, point))
