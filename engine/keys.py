"""API keys: a file of their hashes, scopes and names. A key is 256 random bits, so one round of sha256 is enough to keep it secret."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

SCOPES = ("events", "recall", "recommend", "control")
PREFIX = "hr_"


class KeysError(Exception):
    """The file of keys cannot be used, or a key cannot be made: the message says which and what to do."""


@dataclass(frozen=True)
class Key:
    """A key as it is kept: `sha256` in hex of what its owner holds; made at `made_s`, seconds since 1970."""

    name: str
    scopes: tuple[str, ...]
    sha256: str
    made_s: int


def digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def read(path: Path) -> list[Key]:
    """The keys of a file. Raises KeysError."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["keys"]
        keys = [Key(one["name"], tuple(one["scopes"]), one["sha256"], one["made_s"]) for one in listed]
    except FileNotFoundError:
        raise KeysError(f"{path}: there is no such file of keys; `headrace keys create NAME --scopes events,recall` makes it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeysError(f"{path} is no file of keys ({type(error).__name__}: {error}); `headrace keys` writes such files") from None
    for key in keys:
        _scopes(key.scopes)
    return keys


def create(path: Path, name: str, scopes: tuple[str, ...]) -> str:
    """Add a key; what its owner must keep, which is shown this once. Raises KeysError."""
    keys = read(path) if path.exists() else []
    if not name or any(key.name == name for key in keys):
        raise KeysError(f"a key needs a name of its own, and {name!r} is taken or empty; `headrace keys list` shows them")
    token = PREFIX + secrets.token_urlsafe(32)
    _write(path, [*keys, Key(name, _scopes(scopes), digest(token), int(time.time()))])
    return token


def revoke(path: Path, name: str) -> None:
    """Take a key away: an engine that runs knows it within a second. Raises KeysError."""
    keys = read(path)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        raise KeysError(f"{path} has no key {name!r}; it has {', '.join(key.name for key in keys) or 'none'}")
    _write(path, left)


def _scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    for scope in scopes:
        if scope not in SCOPES:
            raise KeysError(f"{scope!r} is no scope; there are {', '.join(SCOPES)}")
    if not scopes:
        raise KeysError(f"a key needs a scope: {', '.join(SCOPES)}")
    return tuple(dict.fromkeys(scopes))


def _write(path: Path, keys: list[Key]) -> None:
    """Whole or not at all; for its owner's eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"keys": [asdict(key) for key in keys]}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


class Keys:
    """The keys of a file, read again when it has changed, looked at once a second at most. Safe between threads.

    A file that has become unreadable keeps the keys that were known. Raises KeysError when it cannot be read at first.
    """

    def __init__(self, path: Path, look_s: float = 1.0) -> None:
        self._path, self._look_s = path, look_s
        self._lock = threading.Lock()
        self._looked, self._stamp = time.monotonic(), self._now()
        self._by_hash = {key.sha256: key for key in read(path)}

    def of(self, token: str) -> Key | None:
        """The key whose owner says `token`. Found by its hash: how long that takes says nothing about a key."""
        with self._lock:
            if time.monotonic() - self._looked >= self._look_s:
                self._looked = time.monotonic()
                if (stamp := self._now()) != self._stamp:
                    try:
                        self._by_hash, self._stamp = {key.sha256: key for key in read(self._path)}, stamp
                    except KeysError:
                        pass
            return self._by_hash.get(digest(token))

    def _now(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
