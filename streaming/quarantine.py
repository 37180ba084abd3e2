"""The way around a record that kills its worker, or fails it each time.

Before a stage touches records it writes which ones into a small file that is mapped into memory, and clears it after: microseconds, and
what is written there outlives a killed process, since the page belongs to the kernel. The next worker that opens finds the file of the
dead one (its lock is free), counts a death for each record in it, and touches these one at a time. So the second death names one record
alone; after the third it is refused. A record that passes is cleared of its deaths: workers die of other things too.

Marks are a host's own. Where a job moves between hosts each counts for itself, so a record may take three deaths on each.
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

log = logging.getLogger(__name__)
DEATHS_MAX = 3
ROWS_MAX = 4096
KEPT_MAX = 65_536
ALONE_MAX = 8
Record = tuple[int, int]
Work = Callable[[np.ndarray], Any]
Refuse = Callable[[int, str], Any]


class Quarantine:
    """Runs the work of one stage. `folder`: of this stage on this host, shared by its workers; None keeps deaths in this process only.

    `world`: exceptions that are no record's fault; they pass through.
    """

    def __init__(self, folder: str | Path | None = None, world: tuple[type[BaseException], ...] = ()) -> None:
        self._world = world
        self._deaths: dict[Record, int] = {}
        self._offsets: set[int] = set()  # of the records in _deaths: a batch that meets none of them needs no care
        self._proven: set[Record] = set()
        self._mark: _Mark | None = None
        self._ledger: _Ledger | None = None
        if folder is not None:
            try:
                self._ledger = _Ledger(Path(folder))
                self._deaths = self._ledger.inherit()
                self._mark = _Mark(Path(folder))
            except OSError as error:  # a job without a quarantine is better than none
                log.warning("no marks in %s (%s): a record that kills its worker will restart the job for ever", folder, error)
        self._offsets = {offset for _, offset in self._deaths}
        if self._deaths:
            log.warning("%d records were being touched when a worker died: they are tried one by one or left out", len(self._deaths))

    def run(self, where: np.ndarray, offset: np.ndarray, work: Work, refuse: Refuse) -> None:
        """Have `work(rows int64[k])` called for all of n records in their order, together as far as that is safe.

        where, offset int64[n] name a record for good. `refuse(row, sentence)`: leave this one out, it is poison. `work` may be called again
        for rows that it has done. When records raise and others do not, those are refused. When none of up to 8 gets through, it is not
        theirs: that error is raised, and counts like a death.
        """
        for start in range(0, len(offset), ROWS_MAX):
            rows = np.arange(start, min(start + ROWS_MAX, len(offset)))
            attempt = _Attempt(self, where, offset, work, refuse)
            try:
                if not self._offsets or self._offsets.isdisjoint(offset[rows].tolist()):
                    attempt.touch(rows)
                else:
                    self._carefully(attempt, rows)
            finally:
                self.unmark()
                self._settle()
            attempt.judge()

    def close(self) -> None:
        """End in peace: nothing was being touched."""
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def _carefully(self, attempt: _Attempt, rows: np.ndarray) -> None:
        """Suspects one at a time, the refused not at all, what lies between them together."""
        start = 0
        for i, row in enumerate(rows.tolist()):
            record = attempt.record(row)
            deaths = self._deaths.get(record, 0)
            if not deaths:
                continue
            if i > start:
                attempt.touch(rows[start:i])
            start = i + 1
            if deaths >= DEATHS_MAX:
                attempt.refuse(row, f"a worker died or failed {deaths} times while it had this record")
            elif attempt.touch(rows[i : i + 1]):
                self._proven.add(record)
        if start < len(rows):
            attempt.touch(rows[start:])

    def mark(self, where: np.ndarray, offset: np.ndarray) -> None:
        if self._mark is not None:
            self._mark.set(where, offset)

    def unmark(self) -> None:
        if self._mark is not None:
            self._mark.clear()

    def count(self, records: list[Record]) -> None:
        """A failure of each that counts like a death; refused from the third on."""
        for record in records:
            self._deaths[record] = self._deaths.get(record, 0) + 1
            self._offsets.add(record[1])
        if self._ledger is not None:
            self._ledger.change({record: self._deaths[record] for record in records}, set())

    def is_world(self, error: BaseException) -> bool:
        return isinstance(error, self._world)

    def _settle(self) -> None:
        if self._proven:
            for record in self._proven:
                self._deaths.pop(record, None)
            self._offsets = {offset for _, offset in self._deaths}
            if self._ledger is not None:
                self._ledger.change({}, self._proven)
            self._proven = set()


class _Attempt:
    """One run: what got through and what did not."""

    def __init__(self, owner: Quarantine, where: np.ndarray, offset: np.ndarray, work: Work, refuse: Refuse) -> None:
        self._owner, self._where, self._offset, self._work, self.refuse = owner, where, offset, work, refuse
        self._passed = 0
        self._failed: list[tuple[int, Exception]] = []

    def record(self, row: int) -> Record:
        return int(self._where[row]), int(self._offset[row])

    def touch(self, rows: np.ndarray) -> bool:
        """Work on `rows` together, and when that raises, on both halves. Whether all got through."""
        self._owner.mark(self._where[rows], self._offset[rows])
        try:
            self._work(rows)
            self._passed += len(rows)
            return True
        except Exception as error:
            if self._owner.is_world(error):
                raise
            if len(rows) == 1:
                self._failed.append((int(rows[0]), error))
                if not self._passed and len(self._failed) >= ALONE_MAX:
                    self.judge()
                return False
        half = len(rows) // 2
        return all([self.touch(rows[:half]), self.touch(rows[half:])])

    def judge(self) -> None:
        """Refuse what failed where others got through. Raises when none did: after the count, so that this too ends."""
        if self._failed and not self._passed:
            self._owner.count([self.record(row) for row, _ in self._failed])
            raise self._failed[0][1]
        for row, error in self._failed:
            self.refuse(row, f"{type(error).__name__}: {error}")
        self._failed = []


class _Mark:
    """One process's file of what it is about to touch: int64 count, then (where, offset) pairs. Locked for as long as the process lives."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{uuid.uuid4().hex}.mark"
        hidden = self._path.with_suffix(".new")  # a mark must not be seen before it is locked
        self._file = hidden.open("w+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.truncate(8 * (1 + 2 * ROWS_MAX))
        words: np.ndarray = np.frombuffer(mmap.mmap(self._file.fileno(), 0), np.int64)
        self._count, self._rows = words[:1], words[1:].reshape(2, ROWS_MAX)
        hidden.rename(self._path)

    def set(self, where: np.ndarray, offset: np.ndarray) -> None:
        n = len(offset)
        self._count[0] = 0
        self._rows[0, :n] = where
        self._rows[1, :n] = offset
        self._count[0] = n

    def clear(self) -> None:
        self._count[0] = 0

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()


class _Ledger:
    """Deaths by record of all workers of a stage on this host: deaths.json, changed under a lock and replaced whole."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._file = folder, folder / "deaths.json"

    def inherit(self) -> dict[Record, int]:
        """Count a death for what dead workers were touching, remove their marks, and give all."""
        with self._locked():
            deaths = self._read()
            for path in self._folder.glob("*.mark"):
                with path.open("r+b") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue  # its process lives
                    for record in _marked(file):
                        deaths[record] = deaths.get(record, 0) + 1
                self._write(deaths)
                path.unlink()
            return deaths

    def change(self, counted: dict[Record, int], proven: set[Record]) -> None:
        with self._locked():
            deaths = self._read() | counted
            self._write({record: count for record, count in deaths.items() if record not in proven})

    def _read(self) -> dict[Record, int]:
        if not self._file.exists():
            return {}
        return {(where, offset): count for where, offset, count in json.loads(self._file.read_text())}

    def _write(self, deaths: dict[Record, int]) -> None:
        fresh = self._file.with_suffix(".tmp")
        fresh.write_text(json.dumps([[*record, count] for record, count in list(deaths.items())[-KEPT_MAX:]]))
        fresh.replace(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _marked(file: IO[bytes]) -> list[Record]:
    words = np.frombuffer(file.read(), np.int64)
    n = int(words[0]) if len(words) == 1 + 2 * ROWS_MAX else 0
    if not 0 <= n <= ROWS_MAX:
        return []
    where, offset = words[1:].reshape(2, ROWS_MAX)[:, :n].tolist()
    return list(zip(where, offset, strict=True))


def folder_of(marks: str, stage: str) -> Path:
    """The folder of `stage` under `marks`; "" is a folder of this user in the worker's temporary one."""
    return Path(marks or Path(tempfile.gettempdir()) / f"headrace-marks-{os.getuid()}") / stage
