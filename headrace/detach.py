"""`headrace up --detach`: the supervisor as a process of its own, waited for until it is ready."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from headrace import state
from headrace.config import Config


class UpFailed(Exception):
    """The stack did not come up; the message is the supervisor's last."""


def up_detached(config: Config, file: Path | None, only: str, say: Callable[[str], None], deadline_s: float = 180.0) -> None:
    """Return when all is ready. Raises UpFailed and AlreadyUp."""
    data = config.stack.data_dir.resolve()
    with state.hold(data):  # says at once when one runs already
        pass
    (data / "logs").mkdir(exist_ok=True)
    log = data / "logs" / "supervisor.log"
    more = (["--config", str(file)] if file else []) + (["--only", only] if only else [])
    with log.open("wb") as out:
        supervisor = subprocess.Popen([sys.executable, "-u", "-m", "headrace", "up", "--data", str(data), *more], stdin=subprocess.DEVNULL,
                                      stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    ends = time.monotonic() + deadline_s
    while time.monotonic() < ends:
        if supervisor.poll() is not None:
            raise UpFailed(f"the stack did not come up: {_tail(log)}; the whole log is {log}")
        found = state.read(data)
        if found and found["supervisor"]["pid"] == supervisor.pid and found["state"] == "ready":
            say(log.read_text().strip())
            return
        time.sleep(0.1)
    supervisor.terminate()
    raise UpFailed(f"the stack is not ready after {deadline_s:.0f} s; the log is {log}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    errors = [n for n, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join(lines[errors[-1] if errors else -3 :]).removeprefix("error: ")
