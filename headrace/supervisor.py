"""Starts children wave by wave, starts the dead again, stops all in order; says every change.

A death is met with a pause that doubles (0.1 s to 5 s) and a bound within ten minutes, so that a role that cannot live fails loudly.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.processes import Child, Process

WINDOW_S = 600.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 5.0
POLL_S = 0.05
READY_S = 0.25  # how often a child that is not ready yet is asked


class ChildFailed(Exception):
    """A child did not become ready, or died more often than allowed; the message ends with its log's last lines."""


class Supervisor:
    """Children in the order in which they are stopped from behind. One thread calls it: children die with that thread."""

    def __init__(self, run: str, logs: Path, restarts_max: int, changed: Callable[[list[Process]], None],
                 say: Callable[[str], None], came_back: Callable[[str], Any] = lambda name: None) -> None:
        self._came_back = came_back  # told the name of a child that died and is ready again
        self.run, self.processes = run, list[Process]()
        self._logs, self._restarts_max, self._changed, self._say = logs, restarts_max, changed, say
        self._asked: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    def guard(self, state: Path) -> None:
        """Start the guard (headrace/guard.py), which ends what is left when this process is killed."""
        self._guard = subprocess.Popen([sys.executable, "-m", "headrace.guard", self.run, str(state)], stdin=subprocess.PIPE,
                                       start_new_session=True)

    def start(self, children: list[Child], between: dict[int, Callable[[], Any]], stop: threading.Event, ready_s: float) -> None:
        """Start all, wave by wave: wave n + 1 when wave n is ready and `between[n]` has run. Raises ChildFailed."""
        self.processes = [Process(child, self.run, self._logs / f"{child.name}.log") for child in children]
        for wave in sorted({child.wave for child in children}):
            for process in self.processes:
                if process.child.wave == wave:
                    process.start()
                    self._changed(self.processes)
            self._await(wave, stop, ready_s)
            if not stop.is_set() and wave in between:
                between[wave]()

    def _await(self, wave: int, stop: threading.Event, ready_s: float) -> None:
        ends = time.monotonic() + ready_s
        while not stop.is_set():
            self.step()
            waiting = [p for p in self.processes if p.child.wave <= wave and p.state != "ready"]
            if not waiting:
                return
            if time.monotonic() > ends:
                first = waiting[0]
                raise ChildFailed(f"{first.child.name} is not ready after {ready_s:.0f} s ({first.child.ready()}); {first.log} ends:\n"
                                  f"{first.last_words()}")
            time.sleep(POLL_S)

    def watch(self, stop: threading.Event) -> None:
        """Keep all alive until `stop`. Raises ChildFailed when one died too often."""
        while not stop.is_set():
            self.step()
            time.sleep(POLL_S)

    def step(self) -> None:
        """Look at every child once: the dead are started again when their pause is over, the new are asked whether they are ready."""
        now = time.monotonic()
        for process in self.processes:
            if process.state in ("starting", "ready") and process.returncode() is not None:
                self._died(process, now)
            elif process.state == "restarting" and now >= self._due[process.child.name]:
                process.start()
                self._changed(self.processes)
            elif process.state == "starting" and now >= self._asked.get(process.child.name, 0.0):
                if not process.child.ready():
                    process.state = "ready"
                    self._say(f"{process.child.name}: ready, {process.child.address or f'pid {process.popen.pid if process.popen else 0}'}")
                    self._changed(self.processes)
                    if process.restarts:
                        self._came_back(process.child.name)
                self._asked[process.child.name] = time.monotonic() + READY_S

    def _died(self, process: Process, now: float) -> None:
        name = process.child.name
        process.sweep()
        process.deaths = [at for at in process.deaths if now - at < WINDOW_S] + [now]
        if len(process.deaths) > self._restarts_max:
            process.state = "failed"
            self._changed(self.processes)
            raise ChildFailed(f"{name} died {len(process.deaths)} times within ten minutes; {process.log} ends:\n{process.last_words()}")
        pause = min(PAUSE_MIN_S * 2 ** (len(process.deaths) - 1), PAUSE_MAX_S)
        self._due[name] = now + pause
        process.restarts += 1
        process.state = "restarting"
        self._say(f"{name}: ended ({_cause(process.returncode())}), started again in {pause:.1f} s; restart {process.restarts}")
        self._changed(self.processes)

    def stop(self) -> None:
        """Stop all, the last first, and let the guard go."""
        for process in reversed(self.processes):
            if process.state != "new":
                process.stop()
                self._changed(self.processes)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait(30)


def _cause(returncode: int | None) -> str:
    return f"signal {-returncode}" if returncode is not None and returncode < 0 else f"exit code {returncode}"
