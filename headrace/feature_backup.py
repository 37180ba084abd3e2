"""Copies of the feature shard in a folder or an object store, and back: what is left when a disk is not, and how a shard moves.

BASE/NAME/ holds the files of a RocksDB checkpoint, which the service made with all of its rows written; BASE/NAME/features.json is written
last, has each file's sha256, and says that the copy is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import fs

from headrace.ps.backup import BackupError, Place

DONE = "features.json"
CHUNK_BYTES = 1 << 22


class Kept(NamedTuple):
    """A whole copy: its name, events that its shard had folded, of which feature set, bytes."""

    name: str
    sequence: int
    feature_set: str
    bytes: int


def backup(folder: Path, place: Place, name: str, sequence: int, feature_set: str) -> Kept:
    """Copy the checkpoint in `folder`. Raises BackupError; the next one does not mind what that leaves."""
    try:
        target = place.under(name)
        place.system.create_dir(target, recursive=True)
        place.system.delete_dir_contents(target)
        sums, total = dict[str, str](), 0
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            sums[file.name], size = _send(file, place, f"{target}/{file.name}")
            total += size
        said = {"sequence": sequence, "feature_set": feature_set, "bytes": total, "files": sums}
        with place.system.open_output_stream(f"{target}/{DONE}") as out:
            out.write(json.dumps(said).encode())
    except OSError as error:
        raise BackupError(f"{place.under(name)}: {error}") from None
    return Kept(name, sequence, feature_set, total)


def _send(file: Path, place: Place, target: str) -> tuple[str, int]:
    digest = hashlib.sha256()
    with open(file, "rb") as source, place.system.open_output_stream(target) as out:
        while data := source.read(CHUNK_BYTES):
            digest.update(data)
            out.write(data)
        return digest.hexdigest(), source.tell()


def kept(place: Place) -> list[Kept]:
    """The whole copies at `place`, oldest first by name. Raises BackupError."""
    try:
        found = place.system.get_file_info(fs.FileSelector(place.path, allow_not_found=True))
        names = sorted(one.base_name for one in found if one.type == fs.FileType.Directory)
        return [Kept(name, *(said[key] for key in Kept._fields[1:])) for name in names if (said := _said(place, name))]
    except OSError as error:
        raise BackupError(f"{place.path}: {error}") from None


def restore(place: Place, name: str, folder: Path) -> Kept:
    """Make the shard's `folder`, not there or empty, from the copy `name`, every file checked. Raises BackupError, and leaves nothing."""
    if folder.exists() and any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty: move it away first, with the service stopped")
    said = _said(place, name)
    if not said:
        raise BackupError(f"no whole copy {name!r} at {place.path}: it has no {DONE}")
    work = folder.with_name(f"{folder.name}.being-restored")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        for file, digest in said["files"].items():
            if _fetch(place, place.under(name, file), work / Path(file).name) != digest:
                raise ValueError(f"{file} does not have the sha256 that {DONE} says")
        if folder.exists():
            folder.rmdir()
        work.rename(folder)
    except (OSError, ValueError) as error:
        raise BackupError(f"{place.under(name)} is refused: {error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Kept(name, said["sequence"], said["feature_set"], said["bytes"])


def _fetch(place: Place, source: str, target: Path) -> str:
    digest = hashlib.sha256()
    with place.system.open_input_stream(source) as stream, open(target, "wb") as out:
        while data := stream.read(CHUNK_BYTES):
            digest.update(data)
            out.write(data)
    return digest.hexdigest()


def _said(place: Place, name: str) -> dict[str, Any]:
    """What DONE says; empty where there is none."""
    path = place.under(name, DONE)
    if place.system.get_file_info(path).type != fs.FileType.File:
        return {}
    with place.system.open_input_stream(path) as source:
        said: dict[str, Any] = json.loads(source.read())
    return said
