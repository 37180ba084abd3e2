"""The jars of the local stack: which ones (jars.toml), their exact bytes (jars.lock), and where they lie (a cache folder).

A line of jars.lock is `sha256 bytes set group:artifact:version`. A file whose bytes differ is refused, a missing one is downloaded.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
LOCK = HERE / "jars.lock"


class JarsError(Exception):
    """A jar is missing or its bytes are not those of jars.lock; the message names the file and the next step."""


@dataclass(frozen=True)
class Jar:
    """One file; `group_name` is the table of jars.toml that wants it."""

    group_name: str
    coordinate: str  # group:artifact:version
    sha256: str
    size_bytes: int

    @property
    def file(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def line(self) -> str:
        return f"{self.sha256} {self.size_bytes} {self.group_name} {self.coordinate}"


@dataclass(frozen=True)
class Wanted:
    """One table of jars.toml."""

    group_name: str
    coordinates: list[str]
    transitive: bool


def wanted(file: Path = HERE / "jars.toml") -> list[Wanted]:
    return [Wanted(name, body["coordinates"], body["transitive"]) for name, body in tomllib.loads(file.read_text()).items()]


def locked(file: Path = LOCK) -> list[Jar]:
    """What jars.lock names, in its order. Raises JarsError."""
    if not file.exists():
        raise JarsError(f"{file} is missing: take it from the repository, or write it anew with `headrace jars lock`")
    rows = [line.split() for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return [Jar(group_name, coordinate, sha256, int(size)) for sha256, size, group_name, coordinate in rows]


def folder(environ: Mapping[str, str]) -> Path:
    """The cache: XDG_CACHE_HOME/headrace/jars, by default ~/.cache/headrace/jars."""
    home = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "headrace" / "jars"


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        state = hashlib.sha256()
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def missing(where: Path, jars: Iterable[Jar]) -> list[Jar]:
    """Those not in `where`. Raises JarsError for a file whose bytes are not the locked ones."""
    absent: list[Jar] = []
    for jar in jars:
        file = where / jar.file
        if not file.exists():
            absent.append(jar)
        elif (found := digest(file)) != jar.sha256:
            raise JarsError(f"{file} is not the file that jars.lock names (sha256 {found}, locked {jar.sha256}): "
                            "remove it, then `headrace jars fetch`")
    return absent


def fetch(where: Path, jars: list[Jar], download: Callable[[Jar, Path], Path]) -> list[Jar]:
    """Bring what is missing into `where` and return it; `download(jar, staging)` puts one file below `staging` and returns its path.

    A file appears under its name only whole and checked, so an interrupted fetch leaves nothing half there. Raises JarsError.
    """
    absent = missing(where, jars)
    if absent:
        where.mkdir(parents=True, exist_ok=True)
    for jar in absent:
        staging = where / f"incoming-{os.getpid()}"
        try:
            file = download(jar, staging)
            if (found := digest(file)) != jar.sha256:
                raise JarsError(f"refused: the download of {jar.file} is not the file that jars.lock names "
                                f"(sha256 {found}, locked {jar.sha256})")
            os.replace(file, where / jar.file)
        finally:
            _remove(staging)
    return absent


def paths(where: Path, group_name: str) -> list[Path]:
    """The files of one table of jars.toml, present and checked. Raises JarsError."""
    jars = [jar for jar in locked() if jar.group_name == group_name]
    if absent := missing(where, jars):
        raise JarsError(f"{absent[0].file} and {len(absent) - 1} more jars are not in {where}: run `headrace jars fetch`")
    return [where / jar.file for jar in jars]


def _remove(staging: Path) -> None:
    for file in sorted(staging.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    if staging.exists():
        staging.rmdir()
