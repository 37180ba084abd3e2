"""The processes of a local stack that a verification may end: by name, with the process id of the moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from headrace import state
from headrace.processes import is_alive

WORKER = "python-worker"
_BEAM = "pyflink.fn_execution"  # on the command line of Flink's Python workers, and of nothing else below a TaskManager


class NoVictim(Exception):
    """The process that was to be ended does not run now: ask again when it has come back."""


class UnknownProcess(Exception):
    """A name that no process of the stack has; the message lists those that can be ended."""


@dataclass(frozen=True)
class Victim:
    """A process to be ended: the child's name in stack.json, or python-worker."""

    name: str
    pid: int
    started: float

    def kill(self) -> None:
        """SIGKILL, to this process and no other that has its id by now. Raises NoVictim."""
        if not is_alive(self.pid, self.started):
            raise NoVictim(f"{self.name} (pid {self.pid}) has ended by itself")
        os.kill(self.pid, signal.SIGKILL)


class StackVictims:
    """The processes of the stack on `data_dir`; `only` these names of them, when any are given."""

    def __init__(self, data_dir: Path, only: Sequence[str] = ()) -> None:
        self._data_dir, self._only = data_dir, only

    def names(self) -> list[str]:
        """Raises UnknownProcess."""
        found = names(self._data_dir)
        if strange := sorted(set(self._only) - set(found)):
            raise UnknownProcess(f"{', '.join(strange)}: this stack has {', '.join(found)}")
        return list(self._only) or found

    def find(self, name: str, choose: Callable[[list[int]], int]) -> Victim:
        """Raises NoVictim."""
        return find(self._data_dir, name, choose)

    def is_back(self, victim: Victim) -> bool:
        return is_back(self._data_dir, victim)


def names(data_dir: Path) -> list[str]:
    """Every name that can be ended on this stack: all supervised children but the registry (asked at starts only), and a Python worker."""
    return [name for name in _children(data_dir) if name != "registry"] + [WORKER]


def find(data_dir: Path, name: str, choose: Callable[[list[int]], int]) -> Victim:
    """The running process `name`; `choose` takes one of several pids. Raises NoVictim."""
    if name == WORKER:
        pids = workers(data_dir)
        if not pids:
            raise NoVictim("no Python worker runs below the TaskManager")
        pid = choose(pids)
        return Victim(name, pid, _started(pid))
    row = _children(data_dir).get(name)
    if row is None or row["state"] != "ready" or not is_alive(row["pid"], row["started"]):
        raise NoVictim(f"{name} is not ready now")
    return Victim(name, row["pid"], row["started"])


def is_back(data_dir: Path, victim: Victim) -> bool:
    """Whether another process has taken the victim's place and is ready."""
    if victim.name == WORKER:
        return any(pid != victim.pid for pid in workers(data_dir))
    row = _children(data_dir).get(victim.name)
    return row is not None and row["state"] == "ready" and row["pid"] != victim.pid


def workers(data_dir: Path) -> list[int]:
    """Process ids of the Python workers below the TaskManager."""
    row = _children(data_dir).get("flink-taskmanager")
    if row is None:
        return []
    found = []
    try:
        for process in psutil.Process(row["pid"]).children(recursive=True):
            try:
                if any(_BEAM in word for word in process.cmdline()) and not process.children():
                    found.append(process.pid)
            except psutil.Error:
                continue
    except psutil.Error:
        return []
    return sorted(found)


def _started(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def _children(data_dir: Path) -> dict[str, Any]:
    found = state.read(data_dir)
    return found["processes"] if found else {}
