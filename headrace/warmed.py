"""Whether the kernels of this installation are in Numba's cache: a first start would compile them in every process at once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from headrace import jars, java

ROOMS = ("schemas", "features", "ps", "ann", "models", "streaming")


def stamp() -> Path:
    """The file that says so, in the cache folder; another name for other sources, another place, Python or Numba."""
    import importlib

    folders = [Path(importlib.import_module(f"headrace.{room}").__path__[0]) for room in ROOMS]
    files = sorted(file for folder in folders for file in folder.iterdir() if file.name.endswith("kernels.py") or file.name == "layout.py")
    told = [sys.version, version("numba"), *(f"{file} {file.stat().st_mtime_ns}" for file in files)]
    return jars.folder(java.inherited()).parent / f"warm-{hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:16]}"


def ensure(say: Callable[[str], object]) -> None:
    """Compile them once, in a process of its own, where that has not been done. A failure is left for the processes to meet."""
    done = stamp()
    if not done.exists():
        say("compiling kernels, once")
        if subprocess.run([sys.executable, "-m", "headrace.warm"], env=java.inherited(), check=False).returncode == 0:
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()


if __name__ == "__main__":
    ensure(print)
