"""All locked jars in one file: made where a Maven repository is reached, installed where none is."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import IO

from headrace.jars import Jar, JarsError, digest, missing


def bundle(where: Path, jars: list[Jar], file: Path) -> int:
    """Write the jars of `where` into the tar `file`; its bytes. Raises JarsError when one is missing or is another."""
    if absent := missing(where, jars):
        raise JarsError(f"{absent[0].file} and {len(absent) - 1} more jars are not in {where}: run `headrace jars fetch` first")
    incoming = file.with_name(f"{file.name}.incoming-{os.getpid()}")
    try:
        with tarfile.open(incoming, "w") as tar:
            for jar in jars:
                tar.add(where / jar.file, jar.file)
        os.replace(incoming, file)
    finally:
        incoming.unlink(missing_ok=True)
    return file.stat().st_size


def install(file: Path, where: Path, jars: list[Jar]) -> list[Jar]:
    """Bring the jars that `where` lacks out of the tar `file`; those brought. Each must have its locked bytes. Raises JarsError."""
    absent = missing(where, jars)
    if not absent:
        return []
    where.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(file) as tar:
            held = {member.name: member for member in tar.getmembers() if member.isfile()}
            for jar in absent:
                if jar.file not in held:
                    raise JarsError(f"{file} lacks {jar.file}: it was made by another version; `headrace jars bundle` makes one")
                stream = tar.extractfile(held[jar.file])
                assert stream is not None, "a regular file of a tar can be read"
                _put(stream, jar, where, file)
    except (OSError, tarfile.TarError) as error:
        raise JarsError(f"{file} cannot be read as a bundle of jars: {error}") from None
    return absent


def _put(stream: IO[bytes], jar: Jar, where: Path, source: Path) -> None:
    """One file under its name, whole and checked, or not at all."""
    incoming = where / f"incoming-{os.getpid()}.jar"
    try:
        with incoming.open("wb") as out:
            left = jar.size_bytes + 1  # no more than that of a file that claims to be larger
            while left > 0 and (block := stream.read(min(1 << 20, left))):
                out.write(block)
                left -= len(block)
        if (found := digest(incoming)) != jar.sha256:
            raise JarsError(f"refused: {jar.file} in {source} is not the file that jars.lock names (sha256 {found}, locked {jar.sha256})")
        os.replace(incoming, where / jar.file)
    finally:
        incoming.unlink(missing_ok=True)
