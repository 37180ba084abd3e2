"""A lake's files as objects of a store that has no rename and no lock, by fsspec; S3 and what speaks like it.

An object appears whole, under its name, when `put` returns, and of all who `create` a name one succeeds (a PUT with If-None-Match: *). That
is all that a lake needs, and how it does with that is in docs/lake.md. Whether a store keeps to it is tried before a lake is written there:
one that does not would let two writers commit the same offsets.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import pyarrow as pa

from headrace.lake.errors import LakeAway, LakeDamaged, LakeHeld, LakeOvertaken
from headrace.lake.place import Place, bucket_of

CLAIM, PROBE = "writer.json", "create-only.json"
TAKEN, BUSY = ("PreconditionFailed", "412"), ("ConditionalRequestConflict", "OperationAborted", "409")
BUSY_TRIES, BUSY_S = 8, 0.05
CONNECT_S, READ_S, ATTEMPTS = 5, 30, 3

_RIGHTS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or lake.profile, and that they may list, get, put and delete in this bucket"
_GIVE = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where this runs, or lake.profile to a profile of ~/.aws"
_WAIT = ("see whether it runs, and whether lake.endpoint and lake.region are right; a writer goes on by itself when it answers, from its"
         " last commit")
_DO = {"NoSuchBucket": "make the bucket, or name another in lake.dir", "NoCredentialsError": _GIVE, "PartialCredentialsError": _GIVE,
       "ProfileNotFound": _GIVE, "PermissionError": _RIGHTS, "403": _RIGHTS}


class Claim(msgspec.Struct, frozen=True):
    """Who writes a lake: the one that came last. An earlier one sees it at its next commit, and stops."""

    token: str
    host: str
    process: int
    since_ms: int


class Objects:
    """Objects below `root` (BUCKET/PREFIX) of `files`, a file system of fsspec; `name` is what messages call the lake."""

    locks = False

    def __init__(self, files: Any, root: str, name: str) -> None:
        self._files, self._root, self._name = files, root, name
        self._claim: Claim | None = None
        self._tried = False

    def __str__(self) -> str:
        return self._name

    def there(self) -> bool:
        return any(self.names(folder) for folder in ("manifests", "bases")) or self._claimed() is not None

    def mark(self) -> str:
        return f"-{secrets.token_hex(6)}"

    def put(self, name: str, data: pa.Buffer) -> None:
        with self._asked(f"put {name}"):
            self._files.pipe_file(self._path(name), data.to_pybytes())

    def create(self, name: str, data: pa.Buffer) -> None:
        """An answer that was lost, so that a second try finds the first one's object, is told from another's by the bytes."""
        mine = data.to_pybytes()
        for attempt in range(BUSY_TRIES):
            try:
                with self._asked(f"create {name}"):
                    self._create(name, mine)
                return
            except FileExistsError:
                break
            except BlockingIOError:  # another creates it at this moment
                time.sleep(BUSY_S * 2**attempt)
        with suppress(FileNotFoundError):
            if self.get(name) == mine:
                return
        raise LakeOvertaken(f"{self}/{name} was made by another meanwhile (a second writer, a rewriting, an erasure): begin again"
                            " behind it")

    def get(self, name: str) -> bytes:
        with self._asked(f"get {name}"):
            data: bytes = self._files.cat_file(self._path(name))
            return data

    def names(self, folder: str) -> list[str]:
        with self._asked(f"list {folder}"):
            found = self._files.find(self._root, prefix=f"{folder}/")
        inside = (path.strip("/").removeprefix(f"{self._root}/") for path in found)
        return sorted(name for name in inside if name.startswith(f"{folder}/"))

    def remove(self, name: str) -> None:
        with self._asked(f"delete {name}"), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def prune(self, folder: str) -> None:
        """There are no folders."""

    @contextmanager
    def held(self, name: str = "lock", wait: bool = False) -> Iterator[None]:
        """Keeps nobody out. `lock`: says who writes, so that an earlier writer stops; `commit`: raises LakeHeld in that one. What is
        written is safe without, by `create`; so that two writers do not take turns for ever, one of them is told."""
        if name == "commit":
            self._check_claim()
        else:
            self._try()
        if name == "lock":
            self._claim = Claim(secrets.token_hex(8), socket.gethostname(), os.getpid(), int(time.time() * 1000))
            self.put(CLAIM, pa.py_buffer(msgspec.json.encode(self._claim)))
        yield

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _create(self, name: str, data: bytes) -> None:
        self._files.pipe_file(self._path(name), data, mode="create")

    def _claimed(self) -> Claim | None:
        try:
            return msgspec.json.decode(self.get(CLAIM), type=Claim)
        except FileNotFoundError:
            return None

    def _check_claim(self) -> None:
        if self._claim is None:
            return
        there = self._claimed()
        if there is None:
            raise LakeDamaged(f"{self}/{CLAIM}, which this writer put, is gone: the lake was removed or moved while it was written; put it"
                              " back, or set lake.dir to a new place")
        if there.token != self._claim.token:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(there.since_ms / 1000))
            raise LakeHeld(f"process {there.process} on {there.host} writes the lake {self} since {when} UTC, and this one has stopped: a"
                           " lake has one writer; stop the one that is not meant, or set lake.dir to a place of its own, and start this one"
                           " again")

    def _try(self) -> None:
        """Raises LakeAway of a store that overwrites what it is told to create."""
        if self._tried:
            return
        with suppress(LakeOvertaken):
            self.create(PROBE, pa.py_buffer(b"first"))
        try:
            self.create(PROBE, pa.py_buffer(secrets.token_bytes(8)))
        except LakeOvertaken:
            self._tried = True
            return
        raise LakeAway(f"the object store of {self} overwrote {PROBE}, which it was told to create only where there is none"
                       " (If-None-Match: *): two writers could both commit there; use one that keeps to it, or a folder")

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """What a store answers as FileNotFoundError, FileExistsError, BlockingIOError (another creates it), or LakeAway."""
        try:
            yield
        except (FileExistsError, LakeAway):
            raise
        except Exception as error:
            code = _code(error)
            if code in TAKEN:
                raise FileExistsError(what) from error
            if code in BUSY:
                raise BlockingIOError(what) from error
            if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
                raise
            todo = _DO.get(code, _DO.get(type(error).__name__, _WAIT))
            raise LakeAway(f"the object store of the lake {self} did not {what}: {str(error).rstrip('.')}; {todo}") from error


def opened(place: Place) -> Objects:
    """The store of an s3:// place. Raises BadRange, LakeAway where headrace[s3] is not installed."""
    root = bucket_of(place.where)
    try:
        import fsspec

        files = fsspec.filesystem(
            place.where.partition(":")[0], use_listings_cache=False, skip_instance_cache=True, max_concurrency=1,
            client_kwargs={"region_name": place.region} if place.region else {},
            config_kwargs={"connect_timeout": CONNECT_S, "read_timeout": READ_S,
                           "retries": {"total_max_attempts": ATTEMPTS, "mode": "standard"}},
            **({"endpoint_url": place.endpoint} if place.endpoint else {}), **({"profile": place.profile} if place.profile else {}))
    except ImportError:
        raise LakeAway(f"a lake at {place.where} needs the package s3fs: pip install 'headrace[s3]'") from None
    files.retries = 1  # of its own, around those above
    return Objects(files, root, place.where.rstrip("/"))


def _code(error: Exception) -> str:
    """The store's own word for what is wrong, where it said one."""
    for one in (error, error.__cause__):
        said = getattr(one, "response", None)
        if isinstance(said, dict):
            return str(said.get("Error", {}).get("Code", ""))
    return ""
