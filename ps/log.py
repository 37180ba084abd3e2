"""The shard's log: one record a push, with the kernel before the push is acknowledged.

A record: frame <4sIQQI> (magic, crc32 of the body, bytes of the body, sequence, crc32 of the frame before it), then the body: <I> bytes of
the JSON header, the header ({"arrays": [[name, dtype, shape], ...], ...}), the arrays' little-endian bytes. Sequences follow one another
without a hole. A segment is a file named by its first sequence; a snapshot begins a new one. Appending gives bytes to the kernel (a killed
process loses nothing); it does not wait for the disk (a lost power supply may).
"""

from __future__ import annotations

import itertools
import json
import logging
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

log = logging.getLogger(__name__)
MAGIC = b"HRps"
_FRAME = struct.Struct("<4sIQQI")
_LENGTH = struct.Struct("<I")
_PIECES_MAX = 512  # below IOV_MAX


class LogError(Exception):
    """The log cannot be trusted: damaged before its end, or a segment is missing. Restore the shard's folder from a copy, or backfill."""


class Record(NamedTuple):
    sequence: int
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


def encode(sequence: int, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[memoryview | bytes]:
    """The pieces of a record, in order; arrays are not copied."""
    parts = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    listed = [[name, part.dtype.str.lstrip("<|"), list(part.shape)] for name, part in parts.items()]
    text = json.dumps({**header, "arrays": listed}).encode()
    body: list[memoryview | bytes] = [_LENGTH.pack(len(text)), text]
    body += [part.reshape(-1).view(np.uint8).data for part in parts.values() if part.nbytes]
    crc = 0
    for piece in body:
        crc = zlib.crc32(piece, crc)
    frame = _FRAME.pack(MAGIC, crc, sum(len(piece) for piece in body), sequence, 0)[:-4]
    return [frame + _LENGTH.pack(zlib.crc32(frame)), *body]


def _frame_at(data: memoryview, at: int) -> tuple[int, int, int] | None:
    """(crc of the body, bytes of the body, sequence) when a whole frame stands at `at`."""
    if len(data) - at < _FRAME.size:
        return None
    magic, crc, size, sequence, own = _FRAME.unpack_from(data, at)
    return (crc, size, sequence) if magic == MAGIC and zlib.crc32(data[at : at + _FRAME.size - 4]) == own else None


def _decode(sequence: int, body: memoryview) -> Record:
    (size,) = _LENGTH.unpack_from(body)
    header = json.loads(bytes(body[4 : 4 + size]))
    at, arrays = 4 + size, {}
    for name, dtype, shape in header.pop("arrays"):
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, np.dtype(dtype), count, at).reshape(shape) if count else np.empty(shape, dtype)
        at += arrays[name].nbytes
    return Record(sequence, header, arrays)


def segments(folder: Path) -> list[tuple[int, Path]]:
    """(first sequence, file) of every segment, in order."""
    return sorted((int(path.stem.split("-")[1]), path) for path in folder.glob("log-*.bin"))


def reaches_back(folder: Path) -> bool:
    """Whether the log begins at the first push."""
    held = segments(folder)
    return bool(held) and held[0][0] == 1


def read(folder: Path, after: int) -> Iterator[Record]:
    """Records with a sequence above `after`. A torn tail of the last segment is cut off the file and said in the process's log.

    Raises LogError for damage that whole records follow, for a hole, and when the first record is not `after` + 1.
    """
    held = segments(folder)
    expected = after + 1
    for i, (first, path) in enumerate(held):
        last = i + 1 == len(held)
        if not last and held[i + 1][0] <= after + 1:
            continue  # the snapshot covers it
        if first > expected:
            raise LogError(f"{path.name} begins at {first}, but {expected} comes next: a segment is missing")
        for record in _segment(path, first, last):
            if record.sequence > after:
                expected = record.sequence + 1
                yield record
        if not last and expected != held[i + 1][0]:
            raise LogError(f"{path.name} ends at {expected - 1}, and the next segment begins at {held[i + 1][0]}")


def frames(data: memoryview, after: int) -> Iterator[Record]:
    """The records of whole frames that follow one another, from `after` + 1 on. Raises LogError for anything else."""
    at, expected = 0, after + 1
    while at < len(data):
        frame = _frame_at(data, at)
        stop = at + _FRAME.size + (frame[1] if frame else 0)
        if frame is None or stop > len(data) or zlib.crc32(data[at + _FRAME.size : stop]) != frame[0] or frame[2] != expected:
            raise LogError(f"what came of the log after {after} is no whole record {expected} at byte {at} of {len(data)}")
        yield _decode(frame[2], data[at + _FRAME.size : stop])
        at, expected = stop, expected + 1


def _segment(path: Path, first: int, last: bool) -> Iterator[Record]:
    data = _mapped(path)
    at, expected = 0, first
    while at < len(data):
        frame = _frame_at(data, at)
        stop = at + _FRAME.size + (frame[1] if frame else 0)
        if frame is None or stop > len(data) or zlib.crc32(data[at + _FRAME.size : stop]) != frame[0]:
            _cut_tail(path, data, at, last)
            return
        if frame[2] != expected:
            raise LogError(f"{path.name}: sequence {frame[2]} at byte {at}, expected {expected}")
        yield _decode(frame[2], data[at + _FRAME.size : stop])
        at, expected = stop, expected + 1


def _mapped(path: Path) -> memoryview:
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if os.fstat(file.fileno()).st_size else memoryview(b"")


def _cut_tail(path: Path, data: memoryview, at: int, last: bool) -> None:
    """What stands from `at` on is no whole record: a torn write when nothing whole follows in the last segment, damage otherwise."""
    raw = bytes(data[at + 1 :])
    found = raw.find(MAGIC)
    while found >= 0 and _frame_at(memoryview(raw), found) is None:
        found = raw.find(MAGIC, found + 1)
    if found >= 0 or not last:
        raise LogError(f"{path.name}: damaged at byte {at} of {len(data)}, before the end of the log")
    log.warning("%s: torn tail of %d bytes cut at byte %d: a push that was never acknowledged", path.name, len(data) - at, at)
    os.truncate(path, at)


class Log:
    """Appends to the last segment of `folder`. One thread calls it, but for `commit`, which any may."""

    def __init__(self, folder: Path, next_sequence: int) -> None:
        self.folder = folder
        self.failed = ""  # why nothing can be appended any more
        self.durable = False  # somebody will `commit`: a segment is on the disk before the next one begins
        self._appended, self._committed = next_sequence - 1, -1  # whether the disk has what was here before is not known
        self._syncing = threading.Lock()
        held = segments(folder)
        self._open(held[-1][1] if held else self._path(next_sequence))

    def _path(self, first: int) -> Path:
        return self.folder / f"log-{first:020d}.bin"

    def _open(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._path_open = path

    @property
    def size_bytes(self) -> int:
        """Of all segments; one that a snapshot has just made superfluous counts nothing."""
        return sum(_size_of(path) for _, path in segments(self.folder))

    @property
    def appended(self) -> int:
        """The last sequence that is in the log."""
        return self._appended

    def append_frames(self, sequence: int, data: memoryview) -> None:
        """Write frames as they are, of which the last is `sequence`. Raises as `append` does."""
        if self.failed:
            raise OSError(self.failed)
        self._append([data], len(data), sequence)

    def append(self, sequence: int, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write a record. Raises OSError, with the file as before; when even that fails, `failed` says so and every later call raises."""
        if self.failed:
            raise OSError(self.failed)
        pieces = encode(sequence, header, arrays)
        self._append(pieces, sum(len(piece) for piece in pieces), sequence)

    def _append(self, pieces: list[memoryview | bytes], size: int, sequence: int) -> None:
        try:
            self._write(pieces, size)
        except OSError:
            try:
                os.ftruncate(self._fd, self._size)
            except OSError as error:
                self.failed = f"a record was half written and could not be cut off ({error}): restart the shard"
            raise
        self._size += size
        self._appended = sequence

    def commit(self, sequence: int) -> None:
        """Return once all up to `sequence` is on the disk. Who waits meanwhile is answered by one sync (group commit: DeWitt et al. 1984).
        Raises OSError, and so does every later call: what the disk holds is not known any more (fsync's failures are told once)."""
        if sequence <= self._committed:
            return
        with self._syncing:
            if sequence <= self._committed:
                return
            if self.failed:
                raise OSError(self.failed)
            self._sync()

    def _sync(self) -> None:
        appended = self._appended
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self.failed = f"the log could not be synced ({error}): see the disk, then restart the shard"
            raise
        self._committed = appended

    def _write(self, pieces: list[memoryview | bytes], size: int) -> None:
        written = os.writev(self._fd, pieces) if len(pieces) <= _PIECES_MAX else 0
        if written < size:  # a short write: rare, so the rest is joined
            rest = memoryview(b"".join(pieces))[written:]
            while len(rest):
                rest = rest[os.write(self._fd, rest) :]

    def rotate(self, next_sequence: int) -> None:
        """Begin a new segment, unless the open one is empty. Raises OSError when the open one has `failed`: its end stays the log's end."""
        if self.failed:
            raise OSError(self.failed)
        if self._size:
            with self._syncing:
                if self.durable and self._committed < self._appended:
                    self._sync()
                os.close(self._fd)
                self._open(self._path(next_sequence))

    def prune(self, covered: int) -> None:
        """Remove segments of which every sequence is at most `covered`."""
        held = segments(self.folder)
        for (_, path), (following, _) in itertools.pairwise(held):
            if following <= covered + 1:
                path.unlink()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Tail:
    """Reads the log of `folder` behind the process that appends to it, for one follower. One thread at a time calls it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._after, self._path, self._at = -1, folder, 0

    def read(self, after: int, until: int, bytes_max: int) -> bytes | None:
        """Whole frames from `after` + 1 to at most `until`, which is in the log: at least one if there is one, then up to bytes_max bytes.
        None: the log begins later. Raises LogError, OSError."""
        if after >= until:
            return b""
        if (after != self._after or not self._path.exists()) and not self._seek(after):  # a segment that was read to its end may be gone
            return None
        made = bytearray()
        while self._after < until and (not made or len(made) < bytes_max):
            with open(self._path, "rb") as file:
                file.seek(self._at)
                data = file.read(max(bytes_max, _FRAME.size))
                if data:
                    data += file.read(max(0, _FRAME.size + _whole(data, 0)[0] - len(data)))  # one that is larger than a page comes whole
            if not data:
                self._path, self._at = self._folder / f"log-{self._after + 1:020d}.bin", 0  # the next segment
                continue
            made += self._take(data, until)
        return bytes(made)

    def _take(self, data: bytes, until: int) -> bytes:
        """The whole frames at the beginning of `data`, none beyond `until`."""
        at = 0
        while self._after < until and len(data) - at >= _FRAME.size:
            size, sequence = _whole(data, at)
            if at + _FRAME.size + size > len(data):
                break
            if sequence != self._after + 1:
                raise LogError(f"{self._path.name}: sequence {sequence} at byte {self._at + at}, expected {self._after + 1}")
            at, self._after = at + _FRAME.size + size, sequence
        self._at += at
        return data[:at]

    def _seek(self, after: int) -> bool:
        """Go behind sequence `after`; False when the log begins later."""
        self._after = -1
        held = [(first, path) for first, path in segments(self._folder) if first <= after + 1]
        if not held:
            return False
        first, self._path = held[-1]
        self._at, self._after = 0, first - 1
        data = _mapped(self._path)
        while self._after < after:
            size, self._after = _whole(data, self._at)
            self._at += _FRAME.size + size
        return True


def _whole(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """(bytes of the body, sequence) of the frame that begins at `at`. Raises LogError when none does."""
    frame = _frame_at(memoryview(data), at)
    if frame is None:
        raise LogError(f"no frame at byte {at} of what is in the log")
    return frame[1], frame[2]


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
