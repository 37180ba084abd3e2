"""Copies of the shards' snapshots in a folder or an object store, and back: what is left when a disk is not.

BASE/NAME/INDEX/ holds a shard's spec.json and the files of one snapshot; BASE/NAME/backup.json is written last and says that it is whole.
Shards are copied one after another, so their sequences differ by what was pushed meanwhile: after a restore `headrace backfill train` reads
the samples that a shard lacks from their topic, each cause once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import ArrowInvalid, fs

from headrace.ps import snapshot
from headrace.ps.lineage import made_by_a_person, owner_folder

DONE = "backup.json"
TRIES = 3
CHUNK_BYTES = 1 << 22


class BackupError(Exception):
    """A copy cannot be made or read: the message says where and why."""


class Place(NamedTuple):
    """A folder of a file system that Arrow knows."""

    system: fs.FileSystem
    path: str

    def under(self, *parts: str) -> str:
        return "/".join([self.path.rstrip("/"), *parts])


class Kept(NamedTuple):
    """A whole copy: its name, the shards' sequences, its bytes."""

    name: str
    sequences: list[int]
    bytes: int


def place_of(url: str) -> Place:
    """Of file:///path, a path, s3://bucket/path?region=..., gs://bucket/path. Raises BackupError."""
    try:
        return Place(*fs.FileSystem.from_uri(url if "://" in url else Path(url).resolve().as_uri()))
    except (ArrowInvalid, OSError) as error:
        raise BackupError(f"{url!r} is no place that Arrow's file systems know: {error}") from None


def backup(folder: Path, place: Place, name: str) -> Kept:
    """Copy the newest snapshot of each shard in `folder` (0/, 1/, ...), running or not, to `place` under `name`. Raises BackupError."""
    shards = sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
    if not shards:
        raise BackupError(f"no shard in {folder}: is it the folder of the parameter server?")
    sequences, total = [], 0
    try:
        for shard in shards:
            sequence, size = _copy_newest(owner_folder(folder, int(shard.name)), shard.name, place, name)
            sequences.append(sequence)
            total += size
        done = {"sequences": sequences, "bytes": total}
        with place.system.open_output_stream(place.under(name, DONE)) as out:
            out.write(json.dumps(done).encode())
    except OSError as error:
        raise BackupError(f"{place.under(name)}: {error}") from None
    return Kept(name, sequences, total)


def _copy_newest(shard: Path, index: str, place: Place, name: str) -> tuple[int, int]:
    """(sequence, bytes). A snapshot that gives way to a newer one while it is copied is begun again."""
    for left in reversed(range(TRIES)):
        held = snapshot.folders(shard / "snapshots")
        if not held:
            raise BackupError(f"{shard} has no snapshot yet: `ps.snapshot_s` says when it makes one")
        sequence, newest = held[-1]
        target = place.under(name, index)
        try:
            place.system.create_dir(target, recursive=True)
            place.system.delete_dir_contents(target)
            files = [shard / "spec.json", *sorted(newest.iterdir())]
            return sequence, sum(_send(file, place, f"{target}/{file.name}") for file in files)
        except FileNotFoundError:
            if newest.exists() or not left:
                raise
    raise AssertionError("the last try returns or raises")


def _send(file: Path, place: Place, target: str) -> int:
    with open(file, "rb") as source, place.system.open_output_stream(target) as out:
        while data := source.read(CHUNK_BYTES):
            out.write(data)
        return source.tell()


def kept(place: Place) -> list[Kept]:
    """The whole copies at `place`, oldest first by name. Raises BackupError."""
    try:
        found = place.system.get_file_info(fs.FileSelector(place.path, allow_not_found=True))
        names = sorted(one.base_name for one in found if one.type == fs.FileType.Directory)
        return [Kept(name, *_said(place, name)) for name in names if _is_whole(place, name)]
    except OSError as error:
        raise BackupError(f"{place.path}: {error}") from None


def restore(place: Place, name: str, folder: Path, say: Callable[[str], Any] = lambda text: None) -> Kept:
    """Make the shards' `folder`, not there or empty, from the copy `name`, every file checked. Raises BackupError, and leaves nothing."""
    if folder.exists() and any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty: move it away first")
    if not _is_whole(place, name):
        raise BackupError(f"no whole copy {name!r} at {place.path}: it has no {DONE}")
    sequences, total = _said(place, name)
    work = folder.with_name(f"{folder.name}.being-restored")
    shutil.rmtree(work, ignore_errors=True)
    try:
        for index, sequence in enumerate(sequences):
            say(f"shard {index} of {len(sequences)}")
            _fetch(place, name, index, sequence, work / str(index))
        if folder.exists():
            folder.rmdir()
        work.rename(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{place.under(name)} is refused: {error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Kept(name, sequences, total)


def _fetch(place: Place, name: str, index: int, sequence: int, shard: Path) -> None:
    snapshots = shard / "snapshots" / f"{sequence:020d}"
    snapshots.mkdir(parents=True)
    (shard / "log").mkdir()
    for one in place.system.get_file_info(fs.FileSelector(place.under(name, str(index)))):
        target = shard if one.base_name == "spec.json" else snapshots
        with place.system.open_input_stream(one.path) as source, open(target / one.base_name, "wb") as out:
            shutil.copyfileobj(source, out, CHUNK_BYTES)
    made_by_a_person(shard)
    body = json.loads((shard / "spec.json").read_text())
    if body["index"] != index or snapshot.read(snapshots).sequence != sequence:
        raise ValueError(f"{index}/ is not shard {index} at sequence {sequence}")


def _is_whole(place: Place, name: str) -> bool:
    return bool(place.system.get_file_info(place.under(name, DONE)).type == fs.FileType.File)


def _said(place: Place, name: str) -> tuple[list[int], int]:
    with place.system.open_input_stream(place.under(name, DONE)) as source:
        body = json.loads(source.read())
    return [int(one) for one in body["sequences"]], int(body["bytes"])
