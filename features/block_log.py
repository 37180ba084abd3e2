"""The log of a feature shard: one record a block, with the kernel before the block is answered.

A record: frame of uint64[5] (magic, number, words, bytes of the rest, checksum of all else), the words that the block changed
(row_kernels), then the rest, padded to whole words: the writes beside them, which the store takes right after. Numbers rise. A segment is a
file named by its first number. Appending gives bytes to the kernel (a killed process loses nothing); it does not wait for the disk.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.features import row_kernels

SEGMENT_BYTES = 16 << 20
_MAGIC = int.from_bytes(b"HRfeat01", "little")
_FRAME = 5
_WRITE = struct.Struct("<BHII")  # what it does, bytes of the family's name, of the key, of the value
PUT, DELETE, DELETE_RANGE = range(3)


class Writes:
    """What a block writes beside its rows: (what, family, key, value, or the end of a range)."""

    def __init__(self) -> None:
        self.all: list[tuple[int, str, bytes, bytes]] = []

    def put(self, family: str, key: bytes, value: bytes) -> None:
        self.all.append((PUT, family, key, value))

    def delete(self, family: str, key: bytes) -> None:
        self.all.append((DELETE, family, key, b""))

    def delete_range(self, family: str, start: bytes, end: bytes) -> None:
        """The keys from `start` up to, not including, `end`."""
        self.all.append((DELETE_RANGE, family, start, end))

    def into(self, batch: Any) -> None:
        """Put them into a store's batch."""
        for what, family, key, value in self.all:
            if what == PUT:
                batch.put(family, key, value)
            elif what == DELETE:
                batch.delete(family, key)
            else:
                batch.delete_range(family, key, value)

    def packed(self) -> bytes:
        parts = list[bytes]()
        for what, family, key, value in self.all:
            name = family.encode()
            parts += (_WRITE.pack(what, len(name), len(key), len(value)), name, key, value)
        return b"".join(parts)

    @classmethod
    def of(cls, data: bytes) -> Writes:
        """What was `packed`."""
        made, at = cls(), 0
        while at < len(data):
            what, *sizes = _WRITE.unpack_from(data, at)
            at += _WRITE.size
            pieces = []
            for size in sizes:
                pieces.append(data[at : at + size])
                at += size
            made.all.append((what, pieces[0].decode(), pieces[1], pieces[2]))
        return made


class LogError(Exception):
    """The log cannot be trusted: it is damaged before its end. Restore the shard's folder from a copy, or backfill."""


class Record(NamedTuple):
    number: int
    words: np.ndarray
    writes: Writes


class BlockLog:
    """In a folder. `cut` deletes whole segments, of about `segment_bytes`. Used by one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.segment_bytes = folder, SEGMENT_BYTES
        folder.mkdir(parents=True, exist_ok=True)
        self._firsts = sorted(int(file.stem) for file in folder.glob("*.log"))
        self._fd, self._at, self._last = -1, 0, 0

    def records(self) -> Iterator[Record]:
        """All that is kept, in order. What a kill cut off in its middle is no record: it was never answered. Raises LogError."""
        for place, first in enumerate(self._firsts):
            data = np.fromfile(self._path(first), np.uint8)
            words, at = data[: len(data) // 8 * 8].view(np.uint64), 0
            while at < len(words):
                record, end = record_at(words, at)
                if record is None:
                    if place + 1 < len(self._firsts):
                        raise LogError(f"{self._path(first)} is damaged at byte {8 * at}, and newer segments follow: restore the folder"
                                       " from a copy, or begin with a new one and backfill")
                    return
                yield record
                at = end

    def append(self, number: int, words: np.ndarray, writes: Writes) -> int:
        """Write a record; returns its bytes. Raises OSError, and then there is nothing of it."""
        if self._fd < 0 or self._at >= self.segment_bytes:
            self._begin(number)
        pieces = packed(number, words, writes)
        size = sum(len(piece) for piece in pieces)
        self._last = self._at
        try:
            written = os.pwritev(self._fd, pieces, self._at)
            while written < size:  # the disk may take a part
                written += os.pwrite(self._fd, b"".join(pieces)[written:], self._at + written)
        except OSError:
            self.take_back()
            raise
        self._at += size
        return size

    def take_back(self) -> None:
        """Have the last record not be there."""
        os.ftruncate(self._fd, self._last)
        self._at = self._last

    def cut(self, number: int) -> None:
        """Records before `number` are needed no more."""
        while len(self._firsts) > 1 and self._firsts[1] <= number:
            self._path(self._firsts.pop(0)).unlink()

    def clear(self) -> None:
        """No record is needed any more."""
        self.close()
        while self._firsts:  # the oldest first: what is left after a kill is an end
            self._path(self._firsts.pop(0)).unlink(missing_ok=True)

    def bytes(self) -> int:
        return sum(self._path(first).stat().st_size for first in self._firsts)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin(self, number: int) -> None:
        self.close()
        self._fd, self._at = os.open(self._path(number), os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o644), 0
        if number not in self._firsts:
            self._firsts.append(number)

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:020d}.log"


def packed(number: int, words: np.ndarray, writes: Writes) -> list[memoryview]:
    """A record, as bytes in pieces."""
    rest = writes.packed()
    frame = np.array([_MAGIC, number, len(words), len(rest), 0], np.uint64)
    padded = np.frombuffer(rest + bytes(-len(rest) % 8), np.uint64)
    frame[4] = row_kernels.checksum(frame, words, padded, np.empty(4, np.uint64))
    return [memoryview(part).cast("B") for part in (frame, words, padded) if len(part)]


def record_at(words: np.ndarray, at: int) -> tuple[Record | None, int]:
    """The record at a word of a segment, None for what is no whole one, and where the next one begins."""
    frame = words[at : at + _FRAME].copy()
    if len(frame) < _FRAME or int(frame[0]) != _MAGIC:
        return None, at
    number, changed, rest, told = (int(one) for one in frame[1:])
    end = at + _FRAME + changed + (rest + 7) // 8
    if end > len(words):
        return None, at
    frame[4] = 0
    body, padded = words[at + _FRAME : at + _FRAME + changed], words[at + _FRAME + changed : end]
    if int(row_kernels.checksum(frame, body, padded, np.empty(4, np.uint64))) != told:
        return None, at
    return Record(number, body, Writes.of(padded.tobytes()[:rest])), end
