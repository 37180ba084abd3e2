"""A lake as Arrow tables: what commits name, by event time and target. Nothing is asked of a running stack."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.lake import files, manifest
from headrace.lake.columns import SCHEMA
from headrace.lake.errors import BadRange, LakeAbsent, LakeDamaged, LakeRewritten
from headrace.lake.manifest import File, Manifest
from headrace.lake.place import Place
from headrace.lake.store import Store, at

When = str | int | date | None
ORDER = ("ts_ms", "at_partition", "at_offset")


class Lake(NamedTuple):
    """A lake as it was when it was opened: commits that come later are not seen."""

    store: Store
    manifests: list[Manifest]

    @property
    def files(self) -> list[File]:
        return [file for one in self.manifests for file in one.files]


class Choice(NamedTuple):
    """Event times in milliseconds [since, until), and a target; None: all."""

    since_ms: int | None = None
    until_ms: int | None = None
    target: str | None = None

    def takes(self, file: File) -> bool:
        return ((self.since_ms is None or file.ts_ms_max >= self.since_ms) and (self.until_ms is None or file.ts_ms_min < self.until_ms)
                and (self.target is None or self.target in file.labels))


def read(lake: str | Path | Place | Store, *, since: When = None, until: When = None, target: str | None = None,
         columns: Sequence[str] | None = None) -> pa.Table:
    """The samples of the lake in folder or at s3:// URL `lake`, each (cause, target) once, in the order of event time.

    `since`, `until`: event times of the exposures, from `since` on and before `until`; text as 2026-11-30 or 2026-11-30T07 (UTC, or with
    a zone), a date or datetime, or milliseconds. `columns`: some of those in docs/lake.md. feature_keys is list<uint64>, feature_values and
    numbers list<float>; `matrix` makes one array of a column. `.to_pandas()` is the pandas frame. Memory holds all of it: `by_hour` gives
    it in parts. Raises LakeAbsent, LakeDamaged, BadRange.
    """
    parts = list(by_hour(opened(lake), choice(since, until, target), columns))
    return pa.concat_tables(parts, promote_options="default") if parts else _chosen(SCHEMA.empty_table(), columns)


def by_hour(lake: Lake, chosen: Choice = Choice(), columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """As `read`, a table an hour of event time, hours in order. Raises LakeDamaged, BadRange."""
    hours: dict[int, list[File]] = {}
    for file in lake.files:
        if chosen.takes(file):
            hours.setdefault(file.ts_ms_min // files.HOUR_MS, []).append(file)
    wanted = None if columns is None else [*columns, *ORDER, "target"]
    for _, held in sorted(hours.items()):
        table = _filtered(pa.concat_tables([_read(lake, file, wanted) for file in held], promote_options="default"), chosen)
        if len(table):
            yield _chosen(table.take(np.lexsort([table[name].to_numpy() for name in reversed(ORDER)])), columns)


def _read(lake: Lake, file: File, columns: Sequence[str] | None) -> pa.Table:
    """Raises LakeDamaged, LakeRewritten."""
    try:
        return files.read(lake.store, file, columns)
    except LakeDamaged:
        if manifest.newest_base(lake.store) == lake.manifests[0].generation:
            raise
        raise LakeRewritten(f"the lake {lake.store} was rewritten (compacted, expired, erased) while it was read: read it again") from None


def matrix(table: pa.Table, column: str) -> np.ndarray:
    """A column of lists as one array of n rows: feature_keys uint64[n,F], feature_values float32[n,F], numbers float32[n,K].

    Raises ValueError when rows differ in length, as those of different feature sets do: choose by the column feature_set first.
    """
    chunk = table[column].combine_chunks()
    if not len(chunk):
        return np.empty((0, 0), chunk.type.value_type.to_pandas_dtype())
    lengths = pc.unique(pc.list_value_length(chunk)).to_pylist()
    if len(lengths) != 1:
        raise ValueError(f"{column} has rows of {sorted(map(str, lengths))} numbers: choose rows of one feature_set first")
    return chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), lengths[0])


def opened(lake: str | Path | Place | Store) -> Lake:
    """The lake at a place or in a store, or as it was after commit N: PLACE@N; PLACE@N-M is what commits N to M wrote.

    Raises LakeAbsent, LakeDamaged, LakeAway, BadRange.
    """
    if isinstance(lake, (str, Path, Place)):
        place = lake if isinstance(lake, Place) else Place(str(lake))
        where, which = _cut(place)
        store, told = at(place._replace(where=where)), place.where
    else:
        store, which, told = lake, "", str(lake)
    found = manifest.load(store)
    if not found:
        raise LakeAbsent(f"there is no lake in {store}: `lake.enabled = true` has the stack write one (after its first lake.commit_s), and"
                         " --lake names one elsewhere")
    if which:
        found = _commits(found, which, told)
    return Lake(store, found)


def _cut(place: Place) -> tuple[str, str]:
    """PLACE and the N or N-M behind its @. In a URL another @ is none of ours."""
    if place.remote:
        found = re.fullmatch(r"(.+)@(\d+(?:-\d+)?)", place.where)
        return (found[1], found[2]) if found else (place.where, "")
    where, _, which = place.where.partition("@")
    return where, which


def choice(since: When, until: When, target: str | None) -> Choice:
    """Raises BadRange for a time that is none."""
    return Choice(ms_of(since), ms_of(until), target)


def ms_of(when: When) -> int | None:
    """Milliseconds since 1970 of a time as `read` takes it. Raises BadRange."""
    if when is None or isinstance(when, int):
        return when
    if isinstance(when, str):
        text = when.strip().replace("Z", "+00:00")
        try:
            made: Any = datetime.fromisoformat(f"{text}:00" if len(text) == 13 and text[10] in "T " else text)
        except ValueError:
            raise BadRange(f"{when!r} is no time: write 2026-11-30, 2026-11-30T07 or 2026-11-30T07:15+00:00") from None
    else:
        made = when if isinstance(when, datetime) else datetime.combine(when, time())
    return int((made if made.tzinfo else made.replace(tzinfo=timezone.utc)).timestamp() * 1000)


def _commits(found: list[Manifest], text: str, lake: str) -> list[Manifest]:
    first, _, last = text.rpartition("-")
    try:
        begin, end = int(first or 1), int(last)
    except ValueError:
        raise BadRange(f"{lake!r} is no lake: write FOLDER, FOLDER@N for it after commit N, or FOLDER@N-M") from None
    newest, through = found[-1].number, found[0].number if found[0].generation else 0
    if not 1 <= begin <= end <= newest:
        raise BadRange(f"{lake!r}: the lake has commits 1 to {newest}")
    if end < through or (1 < begin <= through and found[0].generation):
        raise BadRange(f"{lake!r}: commits 1 to {through} were made one by `headrace data compact`, `expire` or `erase`, and are not told"
                       " apart any more")
    return [one for one in found if begin <= one.number <= end]


def _filtered(table: pa.Table, chosen: Choice) -> pa.Table:
    keep = np.ones(len(table), bool)
    ts_ms = table["ts_ms"].to_numpy()
    if chosen.since_ms is not None:
        keep &= ts_ms >= chosen.since_ms
    if chosen.until_ms is not None:
        keep &= ts_ms < chosen.until_ms
    if chosen.target is not None:
        keep &= pc.equal(table["target"], chosen.target).to_numpy(zero_copy_only=False)
    return table if keep.all() else table.filter(pa.array(keep))


def _chosen(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """`columns` in their order, and one that these files do not have, being younger than they are, as nulls. Raises BadRange."""
    if columns is None:
        return table
    unknown = [name for name in columns if name not in SCHEMA.names and name not in table.column_names]
    if unknown:
        raise BadRange(f"a lake has no column {unknown[0]!r}; it has {', '.join(SCHEMA.names)}")
    return pa.table({name: table[name] if name in table.column_names else pa.nulls(len(table), SCHEMA.field(name).type)
                     for name in columns})
