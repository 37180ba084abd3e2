"""Rooms shipped to a cluster that has not installed them: inside the pickled stage, unpacked on the worker at a path named by content.

The path is the same for the same code, so Numba's cache, which is keyed by path, outlives a job: rooms in a fresh temporary folder at
each submit would be compiled again in every worker. The cluster's Python must hold the third-party packages of headrace[serve].
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import pickle
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
from pyflink.table.udf import ScalarFunction

ROOMS = ("schemas", "rpc", "features", "ps", "models", "streaming")
ENDINGS = {".py", ".avsc"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


class ShippedElsewhere(Exception):
    """The folder that shipped rooms would be unpacked to belongs to another user: remove it, or set TMPDIR for the workers."""


def archive() -> bytes:
    """The rooms that a worker needs, as a zip under headrace/; the same bytes for the same files."""
    names = ["headrace", *(f"headrace.{room}" for room in ROOMS)]
    folders = {name.replace(".", "/"): Path(importlib.import_module(name).__path__[0]) for name in names}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, folder in folders.items():
            files = [folder / "__init__.py"] if name == "headrace" else sorted(folder.iterdir())
            for file in files:
                if file.suffix in ENDINGS:
                    packed.writestr(zipfile.ZipInfo(f"{name}/{file.name}", _EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def unpack(packed: bytes, parent: Path) -> Path:
    """The folder of `packed`, named by its content and made once however many workers try. Raises ShippedElsewhere."""
    folder = parent / f"headrace-{os.getuid()}-{hashlib.sha256(packed).hexdigest()[:16]}"
    if not folder.exists():
        fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=parent))
        with zipfile.ZipFile(io.BytesIO(packed)) as held:
            held.extractall(fresh)
        try:
            os.rename(fresh, folder)
        except OSError:  # another worker was first
            shutil.rmtree(fresh, ignore_errors=True)
    if folder.stat().st_uid != os.getuid():
        raise ShippedElsewhere(f"{folder} belongs to another user")
    return folder


class Shipped(ScalarFunction):
    """A stage that brings its own rooms: pickled by value, so the worker needs only PyFlink to load it."""

    def __init__(self, stage: Any, packed: bytes) -> None:
        self.packed = packed
        self.stage = pickle.dumps(stage)

    def is_deterministic(self) -> bool:
        return False

    def open(self, function_context: Any) -> None:
        folder = str(unpack(self.packed, Path(tempfile.gettempdir())))
        if folder not in sys.path:
            sys.path.insert(0, folder)
            for name in [name for name in sys.modules if name == "headrace" or name.startswith("headrace.")]:
                del sys.modules[name]  # an installed version must not mix with the shipped one
        self.run = pickle.loads(self.stage)
        self.run.open(function_context)

    def eval(self, *columns: Any) -> Any:
        return self.run.eval(*columns)

    def close(self) -> None:
        if hasattr(self, "run"):  # open may have failed
            self.run.close()


def by_value() -> None:
    """Have this module's classes pickled whole."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
