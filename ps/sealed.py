"""Files that say their own sha256: arrays, synced piece by piece, and a manifest.json that is written last and seals them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

SYNC_BYTES = 1 << 24  # at once: one sync of all of a big file would have the log wait behind it
MANIFEST = "manifest.json"


def write_file(path: Path, array: np.ndarray) -> dict[str, Any]:
    """Write an array's bytes and have the disk take them; {bytes, sha256}, for the manifest."""
    raw, told = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, hashlib.sha256()
    with open(path, "wb", buffering=0) as file:
        for start in range(0, len(raw), SYNC_BYTES):
            part = raw[start : start + SYNC_BYTES]
            told.update(part)
            while len(part):
                part = part[file.write(part) :]
            os.fdatasync(file.fileno())
        os.fsync(file.fileno())
    return {"bytes": len(raw), "sha256": told.hexdigest()}


def read_file(path: Path, said: dict[str, Any]) -> np.ndarray:
    """uint8[n] of a file. Raises ValueError unless it is what the manifest says, OSError."""
    raw = np.fromfile(path, np.uint8)
    if len(raw) != said["bytes"] or hashlib.sha256(raw.data).hexdigest() != said["sha256"]:
        raise ValueError(f"{path.name} does not have the bytes and the sha256 that the manifest says")
    return raw


def seal(folder: Path, body: dict[str, Any]) -> None:
    """Write the manifest: a line of JSON, then a line with its own sha256."""
    line = json.dumps(body)
    write_file(folder / MANIFEST, np.frombuffer(f"{line}\n{hashlib.sha256(line.encode()).hexdigest()}\n".encode(), np.uint8))
    sync_folder(folder)


def sealed(folder: Path) -> dict[str, Any]:
    """The manifest's body. Raises ValueError when it does not have its own sha256, OSError."""
    line, own = (folder / MANIFEST).read_text().split("\n")[:2]
    if hashlib.sha256(line.encode()).hexdigest() != own:
        raise ValueError(f"{MANIFEST} does not have the sha256 that it says")
    return json.loads(line)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
