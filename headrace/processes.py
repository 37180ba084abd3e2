"""One child process: started in a session of its own with a log file, asked whether it is ready, stopped, and known again by its marks.

Every child carries HEADRACE_RUN (this run of the stack) and HEADRACE_CHILD (its name) in its environment, and its own children inherit
both. That is how what a dead JVM leaves behind (Flink's Python workers) is found and ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

PR_SET_PDEATHSIG = 1
LOG_BYTES_MAX = 50 << 20
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Child:
    """What to run. `ready` returns "" or what is missing; `wave`: children of one wave start together, after those of the waves before."""

    name: str
    command: list[str]
    env: dict[str, str]
    ready: Callable[[], str]
    wave: int = 0
    address: str = ""
    grace_s: float = 10.0


@dataclass
class Process:
    """A Child that runs, or ran: its process, since when, and how often it had to be started again."""

    child: Child
    run: str
    log: Path
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    state: str = "new"  # starting, ready, restarting, failed, stopped
    deaths: list[float] = field(default_factory=list)
    restarts: int = 0

    def start(self) -> None:
        """Start it. Its death signal is tied to the calling thread: call from a thread that lives as long as the supervisor."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        marks = {"HEADRACE_RUN": self.run, "HEADRACE_CHILD": self.child.name}
        with self.log.open("ab") as log:
            self.popen = _popen(self.child.command, {**self.child.env, **marks}, log)
        self.started = start_time(self.popen.pid) or time.time()
        self.state = "starting"

    def returncode(self) -> int | None:
        """None while it runs."""
        return self.popen.poll() if self.popen else None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to its whole group after `grace_s`; then whatever still carries its marks."""
        if self.popen and self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(self.child.grace_s)
            except subprocess.TimeoutExpired:
                _kill_group(self.popen.pid)
                self.popen.wait()
        self.sweep()
        self.state = "stopped"

    def sweep(self) -> None:
        """End what this process left behind."""
        sweep(self.run, self.child.name)

    def last_words(self, lines: int = 5) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(self.log.stat().st_size - 4096, 0))
            return "\n".join(log.read().decode(errors="replace").strip().splitlines()[-lines:])


def _popen(command: list[str], env: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    # Other threads here are librdkafka's, which hold no lock of Python's, and what runs between fork and exec takes none.
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                            preexec_fn=die_with_parent)  # noqa: PLW1509


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def start_time(pid: int) -> float:
    """When process `pid` was started (seconds), 0 when there is none: with the pid it names one process, since pids come again."""
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return 0.0


def is_alive(pid: int, started: float) -> bool:
    return pid > 0 and abs(start_time(pid) - started) < 1.0


def marked(run: str, name: str | None = None) -> Iterator[psutil.Process]:
    """Processes that carry the marks of `run`, and of the child `name` when given; never the caller."""
    for process in psutil.process_iter():
        try:
            environ = process.environ() if process.pid != os.getpid() else {}
        except psutil.Error:
            continue
        if environ.get("HEADRACE_RUN") == run and name in (None, environ.get("HEADRACE_CHILD")):
            yield process


def sweep(run: str, name: str | None = None) -> int:
    """SIGKILL to what carries the marks, until nothing does; how many there were."""
    ended = 0
    for _ in range(50):
        found = list(marked(run, name))
        if not found:
            break
        for process in found:
            try:
                process.kill()
                ended += 1
            except psutil.Error:
                pass
        psutil.wait_procs(found, timeout=0.2)
    return ended
