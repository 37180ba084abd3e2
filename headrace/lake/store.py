"""Where a lake's files lie: a local folder, or an object store (objects.py). Who has the methods of `Store` can hold a lake.

In a folder a file appears whole or not at all, under its name, and is on the disk when `put` returns: written beside under a temporary
name, synced, renamed, and the folder synced.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from headrace.lake.errors import LakeHeld
from headrace.lake.place import Place

TEMPORARY = ".new"
_HELD = {"lock": "another writer has the lake {}: stop it (`headrace status` shows the stack's), or set lake.dir to a folder of its own",
         "rewrite": "the lake {} is being rewritten (`headrace data compact`, `expire` or `erase`): wait until that has ended"}


class Store(Protocol):
    """Files by their path from the lake's root, with slashes. Raises OSError as the operating system does, LakeAway of an object store.

    `locks`: `held` keeps others out. Where it does not, what two do at once is decided by `create`, and nobody removes a file that another
    may still name (docs/lake.md).
    """

    locks: bool

    def there(self) -> bool:
        """A writer has begun here, though it may not have committed anything."""
        ...

    def mark(self) -> str:
        """What makes the names of one writer's files its own, another one at each call; "" where locks do."""
        ...

    def put(self, name: str, data: pa.Buffer) -> None:
        """Write a file that is not there yet, whole and safely."""
        ...

    def create(self, name: str, data: pa.Buffer) -> None:
        """As `put`; of all who create this name one succeeds. Raises LakeOvertaken when another has."""
        ...

    def get(self, name: str) -> bytes:
        """All bytes of a file."""
        ...

    def names(self, folder: str) -> list[str]:
        """All files below a folder, temporary ones too, in order; none when it is not there."""
        ...

    def remove(self, name: str) -> None: ...

    def prune(self, folder: str) -> None:
        """Remove the empty folders below one. Nobody may put a file meanwhile."""
        ...

    def held(self, name: str = "lock", wait: bool = False) -> AbstractContextManager[None]:
        """A lock of the lake, as long as the block lasts or the process lives: `lock` is the writer's, `rewrite` that of who rewrites what
        is committed, `commit` that of a commit's moment. Raises LakeHeld, but with `wait` waits."""
        ...


def at(place: Place) -> Store:
    """The store of a place. Raises BadRange for a URL that is none of a lake, LakeAway where headrace[s3] is not installed."""
    if place.remote:
        from headrace.lake.objects import opened

        return opened(place)
    return Folder(Path(place.where))


class Folder:
    """Files below `root`."""

    locks = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def there(self) -> bool:
        return self.root.is_dir()

    def mark(self) -> str:
        return ""

    def create(self, name: str, data: pa.Buffer) -> None:
        self.put(name, data)

    def put(self, name: str, data: pa.Buffer) -> None:
        path = self.root / name
        fresh = path.with_name(f".{path.name}{TEMPORARY}")
        self._make(path.parent)
        self._write(fresh, data)
        self._rename(fresh, path)
        self._sync(path.parent)

    def get(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def names(self, folder: str) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in (self.root / folder).rglob("*") if path.is_file())

    def remove(self, name: str) -> None:
        (self.root / name).unlink()

    def prune(self, folder: str) -> None:
        for path in sorted((self.root / folder).rglob("*"), reverse=True):
            if path.is_dir():
                with suppress(OSError):
                    path.rmdir()

    @contextmanager
    def held(self, name: str = "lock", wait: bool = False) -> Iterator[None]:
        self._make(self.root)
        with (self.root / name).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise LakeHeld(_HELD[name].format(self.root)) from None
            yield

    def _make(self, folder: Path) -> None:
        """The folder and those above it, each known to the disk."""
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            self._sync(folder.parent)

    def _write(self, path: Path, data: pa.Buffer) -> None:
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _rename(self, fresh: Path, path: Path) -> None:
        os.rename(fresh, path)

    def _sync(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
