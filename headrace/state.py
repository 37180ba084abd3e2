"""DATA_DIR/stack.json: which processes run, where, and the real addresses when a default port was taken."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any

from headrace.processes import is_alive

NAME = "stack.json"


class AlreadyUp(Exception):
    """Another `headrace up` holds this data folder: stop it with `headrace down`, or name another with --data."""


def file_of(data_dir: Path) -> Path:
    return data_dir / NAME


def write(data_dir: Path, state: dict[str, Any]) -> None:
    """Replace the file in one step: readers see the old state or the new one."""
    file = file_of(data_dir)
    fresh = file.with_suffix(".json.new")
    fresh.write_text(json.dumps(state, indent=2))
    os.replace(fresh, file)


def remove(data_dir: Path) -> None:
    file_of(data_dir).unlink(missing_ok=True)


def read(data_dir: Path) -> dict[str, Any] | None:
    """The state of the stack that runs on `data_dir`, None when none does; a file whose supervisor is dead is removed."""
    try:
        state = json.loads(file_of(data_dir).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        state = {"supervisor": {"pid": 0, "started": 0.0}}
    if is_alive(state["supervisor"]["pid"], state["supervisor"]["started"]):
        return state
    remove(data_dir)
    return None


def hold(data_dir: Path) -> IO[str]:
    """The lock of `data_dir`, held as long as the file returned is open. Raises AlreadyUp."""
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = (data_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise AlreadyUp(f"a stack runs on {data_dir} already: `headrace status` shows it, `headrace down` stops it") from None
    return lock
