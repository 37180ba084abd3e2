"""What is committed, written anew: small files made one, old hours left out, rows of somebody taken out. A writer may run beside it.

1. New files are put, under names of their own. No manifest names them: killed here, the lake is as before.
2. A base (manifest.py) is put, which stands for all commits up to the last one seen: with it the rewriting is made.
3. The files, manifests and bases that it replaces are removed. Killed here, nothing counts them, and the next rewriting removes them.

The writer only adds commits behind the last one that the base stands for, and never touches what a rewriting wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa

from headrace.lake import files, manifest
from headrace.lake.errors import LakeAbsent, LakeDamaged, LakeHeld, LakeOvertaken
from headrace.lake.manifest import BASES, FOLDER, FORMAT, REWRITTEN, File, Manifest, Origin
from headrace.lake.store import TEMPORARY, Store

ROWS_MAX = 1_000_000  # of a file that was made of others; one at a time is in memory
ORDER = ("ts_ms", "at_partition", "at_offset")


@dataclass
class Rewritten:
    """What was there and what is: files, manifests, rows, bytes; rows and files that went; whether anything was changed."""

    files: tuple[int, int] = (0, 0)
    manifests: tuple[int, int] = (0, 0)
    rows: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    changed: bool = False
    hours: list[str] = field(default_factory=list)


class New:
    """Puts files of a rewriting."""

    def __init__(self, store: Store, generation: int) -> None:
        self.store, self._generation, self._count, self._mark = store, generation, 0, store.mark()

    def put(self, hour: str, table: pa.Table, of: Sequence[File]) -> File:
        """Rows of files `of` of one hour, whose origins say the same topic and code, in the order of event time."""
        origins = [file.origin for file in of if file.origin is not None]
        self._count += 1
        path = f"{files.FOLDER}/{hour}/{REWRITTEN}{self._generation:07d}-{self._count:05d}{self._mark}.parquet"
        table = table.take(np.lexsort([table[name].to_numpy() for name in reversed(ORDER)]))
        origin = Origin(min(one.first for one in origins), max(one.last for one in origins), origins[0].topic_id, origins[0].code)
        return msgspec.structs.replace(files.put(self.store, path, table), origin=origin)


ABSENT = "there is no lake in {}: `lake.enabled = true` has the stack write one, and --lake DIR names one elsewhere"
MEANWHILE = ("another has rewritten the lake {} meanwhile (`headrace data compact`, `expire` or `erase`), and this rewriting counts for"
             " nothing: do it again")
Change = Callable[[list[File], New], list[File]]


def rewrite(store: Store, change: Change, *, manifests: bool = False) -> Rewritten:
    """Have the committed files be what `change(files, new)` returns; `manifests`: make one of these though no file changes.

    Raises LakeAbsent, LakeDamaged, LakeHeld (another rewriting runs, or of an object store has ended meanwhile), OSError, LakeAway.
    """
    if not store.names(FOLDER) and not store.names(BASES):
        raise LakeAbsent(ABSENT.format(store))
    with store.held("rewrite"):
        found = manifest.load(store)
        tidy(store, found)
        base = merged(found)
        cut = not store.locks and any(files.generation_of(name) >= base.generation for name in store.names(files.FOLDER))
        try:
            made = change(base.files, New(store, base.generation))
        except LakeDamaged:
            if manifest.newest_base(store) == base.generation - 1:
                raise
            raise LakeHeld(MEANWHILE.format(store)) from None  # what is missing was replaced
        result = Rewritten((len(base.files), len(made)), (len(found), len(found)), (base.rows, sum(file.rows for file in made)),
                           (sum(file.bytes for file in base.files), sum(file.bytes for file in made)))
        result.hours = sorted({file.hour for file in base.files} - {file.hour for file in made})
        changed = made != base.files
        if changed or cut or (manifests and len(found) > 1):
            base = msgspec.structs.replace(base, files=made, dropped=base.dropped + result.rows[0] - result.rows[1])
            try:
                manifest.write(store, base)
            except LakeOvertaken:
                raise LakeHeld(MEANWHILE.format(store)) from None
            tidy(store, manifest.load(store))
            result.changed, result.manifests = True, (len(found), 1)
            with store.held("commit", wait=True):
                store.prune(files.FOLDER)
        return result


def merged(found: Sequence[Manifest]) -> Manifest:
    """The next base: one manifest for all of `found`, of the same rows."""
    last, counted = found[-1], ("records", "duplicates", "unreadable", "dropped")
    totals = {name: sum(getattr(one, name) for one in found) for name in counted}
    sets: dict[str, int] = {}
    for one in found:
        for name, rows in one.feature_sets.items():
            sets[name] = sets.get(name, 0) + rows
    firsts = {read.partition: read.first for one in reversed(found) if one.topic_id == last.topic_id for read in one.offsets}
    held = [file if file.origin else msgspec.structs.replace(file, origin=Origin(one.number, one.number, one.topic_id, one.code))
            for one in found for file in one.files]
    return msgspec.structs.replace(
        last, **totals, files=held, offsets=[msgspec.structs.replace(read, first=firsts[read.partition]) for read in last.offsets],
        gaps=[gap for one in found for gap in one.gaps], feature_sets=sets, fault=next((one.fault for one in found if one.fault), ""),
        format=FORMAT, generation=found[0].generation + 1,
        topics=manifest.topics(found))


def tidy(store: Store, found: Sequence[Manifest]) -> None:
    """Remove what the newest base replaces, and what a rewriting that was cut off left. The caller holds the lock `rewrite`; where that
    keeps nobody out, files of a generation that has no base yet stay, since who writes it may live."""
    through, generation = (found[0].number, found[0].generation) if found and found[0].generation else (0, 0)
    named = {file.path for one in found for file in one.files}
    for name in store.names(files.FOLDER):
        over = files.rewritten(name) and (store.locks or files.generation_of(name) <= generation)
        if name not in named and (over or 0 < files.commit_of(name) <= through):
            store.remove(name)
    for name in store.names(FOLDER):
        if not name.endswith(TEMPORARY) and name <= manifest.name_of(through):
            store.remove(name)
    for name in store.names(BASES):
        if name < manifest.base_of(generation):
            store.remove(name)


def compact(store: Store, *, open_too: bool = False) -> Rewritten:
    """Make one file of the small ones of each closed hour, and one manifest of all: exactly the same rows. An hour of event time is closed
    when the lake holds a later one; `open_too`: the newest hour as well."""

    def change(held: list[File], new: New) -> list[File]:
        newest = max((file.hour for file in held), default="")
        made: list[File] = []
        for (hour, _, _), group in _grouped(held):
            made += [file for part in _parts(group) for file in _one(part, hour, new)] if open_too or hour < newest else group
        return sorted(made, key=lambda file: file.path) if {file.path for file in made} != {file.path for file in held} else held

    return rewrite(store, change, manifests=True)


def fold(store: Store) -> Rewritten:
    """Make one manifest of all; no file is touched."""
    return rewrite(store, lambda held, _: held, manifests=True)


def expire(store: Store, before_ms: int, *, dry_run: bool = False) -> Rewritten:
    """Leave out the hours of event time that end at `before_ms` or earlier; how much goes, and with `dry_run` would."""
    stays = files.hour_of(before_ms // files.HOUR_MS)
    if dry_run:
        held = [file for one in manifest.load(store) for file in one.files]
        kept = [file for file in held if file.hour >= stays]
        return Rewritten((len(held), len(kept)), (0, 0), (sum(file.rows for file in held), sum(file.rows for file in kept)),
                         (sum(file.bytes for file in held), sum(file.bytes for file in kept)), False,
                         sorted({file.hour for file in held} - {file.hour for file in kept}))
    return rewrite(store, lambda held, _: [file for file in held if file.hour >= stays])


def _grouped(held: Iterable[File]) -> list[tuple[tuple[str, str, str], list[File]]]:
    """By hour, topic and code: what a file's origin can say of all of its rows."""
    groups: dict[tuple[str, str, str], list[File]] = {}
    for file in held:
        assert file.origin is not None, "the files of a base say where they are from"
        groups.setdefault((file.hour, file.origin.topic_id, file.origin.code), []).append(file)
    return sorted(groups.items())


def _parts(group: Sequence[File]) -> list[list[File]]:
    """Files to be made one, of at most ROWS_MAX rows together."""
    parts, rows = list[list[File]](), 0
    for file in sorted(group, key=lambda file: file.rows):
        if not parts or rows + file.rows > ROWS_MAX:
            parts.append([])
            rows = 0
        parts[-1].append(file)
        rows += file.rows
    return parts


def _one(part: list[File], hour: str, new: New) -> list[File]:
    if len(part) == 1:
        return part
    table = pa.concat_tables([files.read(new.store, file) for file in part], promote_options="default")
    assert len(table) == sum(file.rows for file in part), "a file's rows are those that its manifest says"
    return [new.put(hour, table, part)]
