"""Published versions of a model: its served rows of one cut of every training shard, in files that outlive all processes.

ROOT is DATA_DIR/versions/MODEL. ROOT/N/ holds `TABLE.FIRST-LAST.keys` and `.values` for each eighth of the slots, and, written last,
manifest.json with the sha256 of every file; all is synced before the folder gets its name, and nothing is changed afterwards, so that a
folder may be copied elsewhere. Version 0 has no folder: it is live, the replica's fold of the stream. ROOT/serving.json is the choice of
what is served: whoever serves reads it, so that it alone decides, whichever process dies (headrace/versions.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.ps import kernels
from headrace.ps.index import kernel_input
from headrace.ps.replica import as_served
from headrace.ps.sealed import read_file, seal, sealed, sync_folder, write_file
from headrace.ps.snapshot import table_of
from headrace.ps.spec import ModelSpec, SpecError, TableSpec
from headrace.ps.table import SLOTS, Table

LIVE = 0
FORMAT = 1
FILES = 8  # of a table, each of SLOTS / FILES slots
CHOICE = "serving.json"
BROKEN = (ValueError, KeyError, TypeError, OSError)
Rows = tuple[np.ndarray, np.ndarray]
"""keys uint64[n], weights float32[n, dim]."""


class VersionError(Exception):
    """A version that cannot be used, or is not there; the message names it and says what to do. `headrace models list` shows them all."""


@dataclass(frozen=True)
class Cut:
    """What a shard served at one sequence: rows by table, and the slots that are its own."""

    sequence: int
    epoch: int
    slots: tuple[int, int]
    tables: dict[str, Rows]


@dataclass(frozen=True)
class Version:
    """The manifest. `sequence` and `epoch` int[64] by slot; `metrics` and `note` are for people; `by` is person or guard."""

    model: str
    number: int
    spec: ModelSpec
    created_ms: int
    sequence: list[int]
    epoch: list[int]
    rows: dict[str, int]
    files: dict[str, dict[str, Any]]
    by: str = ""
    note: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(one["bytes"] for one in self.files.values())


@dataclass(frozen=True)
class Choice:
    """What is served. `turn` grows with every change: a later one is never undone by an earlier one that comes late. `pinned`: a person's,
    which no guard changes."""

    version: int = LIVE
    turn: int = 0
    pinned: bool = False
    by: str = "start"
    reason: str = "nothing was chosen yet"
    at_ms: int = 0


def served_of(spec: ModelSpec) -> ModelSpec:
    """What a replica keeps of a model."""
    return ModelSpec(spec.model, spec.version, tuple(as_served(table) for table in spec.tables if table.served))


def cut_of(snapshot: Path, spec: ModelSpec, slots: tuple[int, int]) -> Cut:
    """The served rows in a shard's snapshot. Raises VersionError when it does not hold together, or is of another layout."""
    try:
        said = sealed(snapshot)
        tables = {}
        for table in spec.tables:
            at = f"{spec.model}.{table.name}"
            held = next(one for one in said["tables"] if (one["model"], one["table"]) == (spec.model, table.name))
            stored = table_of(snapshot, said, held)
            if held["version"] != spec.version or held["layout"][2] != table.dim:
                raise ValueError(f"{at} is of model version {held['version']} and dim {held['layout'][2]}")
            tables[table.name] = stored.keys, np.ascontiguousarray(stored.rows[:, : table.dim])
        return Cut(said["sequence"], said["epoch"], slots, tables)
    except (*BROKEN, StopIteration) as error:
        raise VersionError(f"the snapshot {snapshot} cannot be published: {error or 'a table is missing'}") from None


@contextlib.contextmanager
def changing(root: Path) -> Iterator[None]:
    """Whoever publishes or changes what is served, one after the other, in all processes."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(root: Path, spec: ModelSpec, cuts: Sequence[Cut], created_ms: int, by: str = "", note: str = "",
          metrics: Mapping[str, Any] | None = None) -> Version:
    """Write the next version of a served `spec`. The caller holds `changing`. Raises OSError, and nothing is there."""
    root.mkdir(parents=True, exist_ok=True)
    names = [path.name.removeprefix(".writing-").split(".")[0] for path in root.iterdir()]
    number = max((int(name) for name in names if name.isdigit()), default=LIVE) + 1
    work = root / f".writing-{number}"
    work.mkdir()
    try:
        files: dict[str, dict[str, Any]] = {}
        rows: dict[str, int] = {}
        for table in spec.tables:
            keys, values = (np.concatenate(parts) for parts in zip(*(cut.tables[table.name] for cut in cuts), strict=True))
            slot = kernels.slots_of(kernel_input(keys))
            rows[table.name] = len(keys)
            for first, last in _ranges():
                at = (slot >= first) & (slot <= last)
                for kind, array in (("keys", keys), ("values", values)):
                    name = f"{table.name}.{first:02d}-{last:02d}.{kind}"
                    files[name] = write_file(work / name, array[at])
        sequence, epoch = [0] * SLOTS, [0] * SLOTS
        for cut in cuts:
            first, stop = cut.slots
            sequence[first:stop], epoch[first:stop] = [cut.sequence] * (stop - first), [cut.epoch] * (stop - first)
        made = Version(spec.model, number, spec, created_ms, sequence, epoch, rows, files, by, note, dict(metrics or {}))
        seal(work, {"format": FORMAT, **asdict(made), "spec": spec.to_dict()})
        work.rename(root / str(number))
        sync_folder(root)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return made


def numbers(root: Path) -> list[int]:
    """Of the versions that have a folder, ascending."""
    return sorted(int(path.name) for path in root.glob("*") if path.name.isdigit()) if root.is_dir() else []


def about(root: Path, number: int) -> Version:
    """The manifest of a version; its files are not read. Raises VersionError."""
    try:
        body = sealed(root / str(number))
        if body.pop("format") != FORMAT:
            raise ValueError(f"it is of another format than {FORMAT}")
        made = Version(**{**body, "spec": ModelSpec.from_json(body["spec"])})
        if made.number != number:
            raise ValueError(f"its manifest is that of version {made.number}")
        return made
    except FileNotFoundError:
        raise VersionError(_absent(root, number)) from None
    except (*BROKEN, SpecError) as error:
        raise _broken(root, number, error) from None


def load(root: Path, number: int, spec: ModelSpec, rows_max: int) -> tuple[Version, dict[str, Table]]:
    """A version as tables that a replica pulls from: every file checked, made for `spec` and no other. Raises VersionError."""
    made, wanted = about(root, number), served_of(spec)
    if (made.model, made.spec.version) != (wanted.model, wanted.version) or _layouts(made.spec) != _layouts(wanted):
        raise VersionError(f"version {number} in {root} was published by {made.spec.scope} with the tables {_told(made.spec)}, and this is"
                           f" {wanted.scope} with {_told(wanted)}: it cannot be served here; publish a new one")
    tables = {}
    for table in wanted.tables:
        if made.rows[table.name] > rows_max:
            raise VersionError(f"version {number} in {root} has {made.rows[table.name]:,} rows of {table.name}, more than ps.rows_max"
                               f" ({rows_max:,}) has room for: raise it")
        held = Table(table, rows_max, changes=False)
        try:
            for keys, values in _files(root / str(number), made, table):
                held.put(keys, values)
            if len(held) != made.rows[table.name]:
                raise ValueError(f"{table.name} has {len(held)} rows, its manifest says {made.rows[table.name]}")
        except BROKEN as error:
            raise _broken(root, number, error) from None
        tables[table.name] = held
    return made, tables


def remove(root: Path, number: int) -> None:
    """Drop a version's folder: first its name, so that nobody finds half of it."""
    gone = root / f".gone-{number}"
    shutil.rmtree(gone, ignore_errors=True)
    (root / str(number)).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def chosen(root: Path) -> Choice:
    """What is to be served. Raises VersionError for a file that is not readable."""
    try:
        return Choice(**json.loads((root / CHOICE).read_text()))
    except FileNotFoundError:
        return Choice()
    except BROKEN as error:
        raise VersionError(f"{root / CHOICE} is not readable ({error}): `headrace models rollback live` writes it anew") from None


def choose(root: Path, choice: Choice) -> None:
    """Make `choice` that which is served, safely on the disk. The caller holds `changing`."""
    work = root / f".{CHOICE}"
    with open(work, "w") as file:
        file.write(json.dumps(asdict(choice)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    work.rename(root / CHOICE)
    sync_folder(root)


def _ranges() -> list[tuple[int, int]]:
    width = SLOTS // FILES
    return [(first, first + width - 1) for first in range(0, SLOTS, width)]


def _files(folder: Path, made: Version, table: TableSpec) -> Iterator[Rows]:
    for first, last in _ranges():
        keys_name, values_name = (f"{table.name}.{first:02d}-{last:02d}.{kind}" for kind in ("keys", "values"))
        keys = read_file(folder / keys_name, made.files[keys_name]).view(np.uint64)
        values = read_file(folder / values_name, made.files[values_name]).view(np.float32).reshape(len(keys), table.dim)
        slot = kernels.slots_of(kernel_input(keys))
        if not ((slot >= first) & (slot <= last)).all():
            raise ValueError(f"{keys_name} has keys of other slots")
        if not np.isfinite(values).all():
            raise ValueError(f"{values_name} has weights that are not finite")
        yield keys, values


def _layouts(spec: ModelSpec) -> list[tuple[str, int, float]]:
    """What must be the same for a row to mean the same, that of an unknown key too."""
    return sorted((table.name, table.dim, table.init_scale) for table in spec.tables)


def _told(spec: ModelSpec) -> str:
    return ", ".join(f"{name} of dim {dim} and init_scale {scale:g}" for name, dim, scale in _layouts(spec))


def _absent(root: Path, number: int) -> str:
    known = ", ".join(map(str, numbers(root)))
    if (root / str(number)).is_dir():
        return f"version {number} in {root} is broken: it has no manifest.json; take another of {known}, or live"
    there = f"there are {known}, and live" if known else "none was published: `headrace models publish` makes one"
    return f"there is no version {number} in {root}; {there}"


def _broken(root: Path, number: int, error: BaseException) -> VersionError:
    others = ", ".join(str(one) for one in numbers(root) if one != number)
    return VersionError(f"version {number} in {root} is broken: {error}; take another ({others + ' or ' if others else ''}live), or put"
                        " back a copy of its folder")
