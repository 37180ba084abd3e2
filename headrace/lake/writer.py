"""The writer: records of the topic in, each (cause, target) once in Parquet out, committed by a manifest that says how far it read.

A commit writes its files, then its manifest (files.py, manifest.py). Killed anywhere, the next writer starts at the offsets of the last
manifest, with the causes that the lake holds, and removes what a commit without a manifest left: so nothing is lost or doubled.
One writer is used by one thread, and thrown away after an exception: the lake on the disk is the truth.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from headrace.lake import erasing, files, manifest
from headrace.lake.columns import fault_of, table_of
from headrace.lake.errors import LakeAhead, LakeDamaged, LakeOvertaken
from headrace.lake.known import Known
from headrace.lake.manifest import Manifest, Range
from headrace.lake.source import Read, Topic
from headrace.lake.store import TEMPORARY, Store
from headrace.rpc.causes import Causes

log = logging.getLogger(__name__)
Marks = Mapping[int, tuple[int, int]]


@dataclass
class Pending:
    """What was read since the last commit."""

    first: dict[int, int]
    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    records: int = 0
    duplicates: int = 0
    unreadable: int = 0
    fault: str = ""
    gaps: list[Range] = field(default_factory=list)


@dataclass
class Totals:
    """Of all commits of a lake."""

    commits: int = 0
    rows: int = 0
    duplicates: int = 0
    unreadable: int = 0
    gap: int = 0

    def add(self, one: Manifest) -> None:
        self.commits, self.rows = one.number, self.rows + one.rows
        self.duplicates, self.unreadable = self.duplicates + one.duplicates, self.unreadable + one.unreadable
        self.gap += sum(map(len, one.gaps))


class Writer:
    """Goes on where the lake of `store` ends, in `topic`, whose partitions hold what `marks` says (Source.marks); `look` asks for these
    again. The caller holds the lake's lock.

    Raises LakeDamaged, LakeAhead, OSError; of an object store LakeAway, LakeOvertaken (make a new one), LakeHeld (another came).
    """

    def __init__(self, store: Store, topic: Topic, marks: Marks, look: Callable[[], Marks], *, ring_length: int,
                 now_ms: Callable[[], int]) -> None:
        self._store, self._topic, self._look, self._now_ms = store, topic, look, now_ms
        found, self.known = self._known(ring_length)
        self._number, self._mark = found[-1].number + 1 if found else 1, store.mark()
        self._base = found[0].generation if found else 0
        found = self._sweep(found)
        self.totals = Totals()
        for one in found:
            self.totals.add(one)
        self.committed_ms = found[-1].written_ms if found else now_ms()
        self.positions = self._begin(*manifest.positions(found), marks)
        self.pending = Pending(dict(self.positions))
        if any(high < self.positions.get(partition, 0) for partition, (_, high) in marks.items()):
            marks = look()  # another writer was here since they were asked
        for partition, (low, high) in marks.items():
            self._meet(partition, low, low, high)

    def take(self, batch: Sequence[Read]) -> None:
        """Records in the order of the topic: the first of each (cause, target) becomes a row, others are counted."""
        pending, samples, places = self.pending, [], []
        for record in batch:
            expected = self.positions.get(record.partition, 0)
            if record.offset != expected:
                self._jumped(record, expected)
            self.positions[record.partition] = record.offset + 1
            fault = record.fault if record.sample is None else fault_of(record.sample)
            if record.sample is not None and not fault:
                samples.append(record.sample)
                places.append((record.partition, record.offset, record.at_ms))
            else:
                self._unreadable(record, fault)
        pending.records += len(batch)
        if samples:
            table = table_of(samples, places)
            causes = Causes(*(table[name].to_numpy() for name in ("source", "partition", "offset")))
            first = self.known.first([sample["target"] for sample in samples], causes)
            pending.duplicates += len(table) - int(first.sum())
            if first.any():
                pending.tables.append(table if first.all() else table.filter(pa.array(first)))
                pending.rows += len(pending.tables[-1])
                pending.bytes += pending.tables[-1].nbytes

    @property
    def moved(self) -> bool:
        """There is something to commit."""
        return self.positions != self.pending.first

    def commit(self) -> Manifest | None:
        """Files, then the manifest; None when nothing was read. Raises OSError and what the class says, and then this writer is not to be
        used again. Who takes out rows meanwhile waits, or has this commit fail, so that it is seen whole or comes after."""
        if not self.moved:
            return None
        with self._store.held("commit", wait=True):
            return self._commit(self.pending)

    def _commit(self, pending: Pending) -> Manifest:
        table, dropped = pa.concat_tables(pending.tables) if pending.tables else None, 0
        if table is not None and (removals := erasing.load(self._store)):
            kept = erasing.without(table, removals)
            dropped, table = len(table) - len(kept), kept if len(kept) else None
        made = files.write(self._store, table, self._number, self._mark) if table is not None else []
        sets = Counter(table["feature_set"].to_pylist()) if table is not None else {}
        offsets = [Range(partition, pending.first.get(partition, 0), stop) for partition, stop in sorted(self.positions.items())]
        one = Manifest(self._number, *self._topic, offsets, made, pending.records, pending.duplicates, pending.unreadable, pending.gaps,
                       dict(sets), manifest.code(), self._now_ms(), pending.fault, dropped=dropped)
        self._base = manifest.write(self._store, one, self._base)
        self.known.committed(made)
        self.totals.add(one)
        self._number, self.committed_ms, self.pending = self._number + 1, one.written_ms, Pending(dict(self.positions))
        return one

    def _known(self, ring_length: int) -> tuple[list[Manifest], Known]:
        """The commits and what they hold, though the lake be rewritten meanwhile."""
        while True:
            found = manifest.load(self._store)
            try:
                return found, Known(self._store, [file for one in found for file in one.files], ring_length)
            except LakeDamaged:
                if manifest.newest_base(self._store) == (found[0].generation if found else 0):
                    raise

    def _sweep(self, found: list[Manifest]) -> list[Manifest]:
        """Remove what a commit without a manifest left; the commits that there are then. Where there are no locks, whose commit it is may
        live: that one can make it no more before anything of it is removed. Raises LakeOvertaken when it just has."""
        left = self._left(found)
        if left and not self._store.locks:
            found = [*found, manifest.fence(self._store, self._now_ms())]
            if found[-1].number != self._number:
                raise LakeOvertaken(f"{self._store} was committed to while this writer began: begin again behind that")
            self._number += 1
        for name in [*left, *(name for name in self._store.names(manifest.FOLDER) if name.endswith(TEMPORARY))]:
            log.warning("%s/%s was left by a commit that did not end; removed", self._store, name)
            self._store.remove(name)
        return found

    def _left(self, found: Sequence[Manifest]) -> list[str]:
        held, through = [file for one in found for file in one.files], found[0].number if found and found[0].generation else 0
        try:
            return list(files.leftovers(self._store, held, self._number, through))
        except LakeDamaged:
            if not self._store.locks and len(manifest.load(self._store)) > len(found):
                raise LakeOvertaken(f"{self._store} was committed to while this writer began: begin again behind that") from None
            raise

    def _begin(self, topic_id: str, at: dict[int, int], marks: Marks) -> dict[int, int]:
        """Where each partition is read from: a topic that the lake has not met is taken from what it holds."""
        if topic_id == self._topic.id:
            return dict(at)
        if topic_id:
            log.warning("topic %s was made anew: it is read from its beginning; what the topic of id %s held behind %s is not in the lake",
                        self._topic.name, topic_id, at)
        return {partition: low for partition, (low, _) in marks.items()}

    def _meet(self, partition: int, low: int, next_offset: int, high: int | None) -> None:
        """What is known of a partition's ends: offsets that are gone unread are a gap, and offsets that are not there yet an error."""
        expected = self.positions.get(partition, 0)
        if high is not None and high < expected:
            raise LakeAhead(f"partition {partition} of {self._topic.name} ends at {high}, and the lake {self._store} has taken it up to"
                            f" {expected}: the broker has lost records. Keep this lake as it is and set lake.dir to a new folder")
        stop = min(low, next_offset)
        if stop > expected:
            self.pending.first.setdefault(partition, expected)
            self.pending.gaps.append(Range(partition, expected, stop))
            self.positions[partition] = stop
            log.error("gap: offsets %d to %d of partition %d of %s were removed by retention before they were written: up to %d samples are"
                      " not in the lake; raise the topic's retention, or have the writer run", expected, stop - 1, partition,
                      self._topic.name, stop - expected)

    def _jumped(self, record: Read, expected: int) -> None:
        """An offset that does not follow: a hole (the end of a transaction), or a gap when the topic begins behind what was expected."""
        if record.offset < expected:
            raise LakeAhead(f"partition {record.partition} of {self._topic.name} gave offset {record.offset} after {expected - 1}: the"
                            f" broker has lost records. Keep the lake {self._store} as it is and set lake.dir to a new folder")
        low, _ = self._look().get(record.partition, (0, 0))
        self._meet(record.partition, low, record.offset, None)

    def _unreadable(self, record: Read, fault: str) -> None:
        self.pending.unreadable += 1
        place = f"partition {record.partition} offset {record.offset}: {fault}"
        self.pending.fault = self.pending.fault or place
        log.error("a record of %s is not readable and not in the lake: %s", self._topic.name, place)


def lag(positions: Mapping[int, int], marks: Marks) -> int:
    """Offsets of the topic that are not read yet."""
    return sum(max(high - positions.get(partition, low), 0) for partition, (low, high) in marks.items())
