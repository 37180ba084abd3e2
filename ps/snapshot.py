"""A snapshot: rows with their optimizer slots, what is unpublished, and the rings, all of one cut.

SEQUENCE/ holds `MODEL.TABLE.ARRAY` for each array of ps/stored.py's Stored (raw, little-endian; `admission.NAME` for what waits there),
`rings` (512-byte pages) and, written last, `manifest.json`: a line of JSON with the sha256 of every file, then a line with its own sha256.
Files and folders are synced before the folder gets its name. The snapshot before is kept, and read when the newest is broken.

One that says only what came since a full one (`base`) holds that one's files as hard links, which take no room and outlive the other's
folder, and beside them `MODEL.TABLE.delta.ARRAY` (keys, rows, touched, removed, changed: keys): every folder is whole, to be read and
copied by itself. Since the newest two may then share the bytes of one full snapshot, the newest of another full one is kept too.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.ps.sealed import read_file, seal, sealed, sync_folder, write_file
from headrace.ps.stored import Delta, Stored
from headrace.rpc.causes import PAGE_BITS, RingKey

log = logging.getLogger(__name__)
FORMAT, WITH_BASE = 2, 3
READ = (1, FORMAT, WITH_BASE)  # 1: without touched, gone, admission and clocks
KEPT = 2
ARRAYS = {"keys": np.uint64, "rows": None, "touched": np.uint32, "changed": np.int64, "gone": np.uint64}
DELTA = {"keys": np.uint64, "rows": None, "touched": np.uint32, "removed": np.uint64, "changed": np.uint64}
REST = ("gone",)  # of a delta's ARRAYS, what it says whole
NOTHING = np.zeros(0, np.uint8)
_PAGE_BYTES = PAGE_BITS // 8


class SnapshotError(Exception):
    """No snapshot of the folder can be read, and the log does not reach back: restore the shard's folder from a copy, or backfill."""


class TableCut(NamedTuple):
    """A table's rows, of a model's version; layout: TableSpec.layout(). With `removed` they are a stored.Delta's, else all."""

    version: int
    layout: list[Any]
    stored: Stored
    removed: np.ndarray | None = None


class Cut(NamedTuple):
    """A shard at one sequence, in memory of its own. `tables` by (model, table); `firsts`: first page that a ring keeps, bits dropped;
    `clocks`: event time in seconds by model; `base`: sequence of the full cut since which this one says what came, 0: it is full."""

    sequence: int
    epoch: int
    tables: dict[tuple[str, str], TableCut]
    rings: list[tuple[RingKey, int, bytes]]
    firsts: list[tuple[RingKey, int, int]]
    clocks: dict[str, int]
    base: int = 0


def folders(folder: Path) -> list[tuple[int, Path]]:
    """(sequence, folder) of the finished snapshots, oldest first."""
    return sorted((int(path.name), path) for path in folder.glob("*") if path.name.isdigit())


def write(folder: Path, cut: Cut) -> Path:
    """Write `cut` under `folder`, drop what is kept no more; the snapshot's folder. A cut since `base` needs that one's files, and a file
    system with hard links. Raises OSError, ValueError (the base is broken) and leaves the others as they are."""
    final = folder / f"{cut.sequence:020d}"
    if final.exists():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f".writing-{cut.sequence}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    files, below = _linked(folder, cut.base, work) if cut.base else ({}, {})
    tables: list[dict[str, Any]] = []
    for (model, name), table in sorted(cut.tables.items()):
        held, at = table.stored, f"{model}.{name}"
        arrays = {at + f".{kind}": getattr(held, kind) for kind in (REST if cut.base else ARRAYS)}
        arrays |= {at + f".admission.{kind}": array for kind, array in held.admission.items()}
        said = {"rows": len(held.keys), "width": int(held.rows.shape[1]), "dtype": held.rows.dtype.name}
        if table.removed is not None:
            if at not in below:
                raise ValueError(f"the full snapshot of sequence {cut.base} has no table {at}")
            arrays |= {at + f".delta.{kind}": table.removed if kind == "removed" else getattr(held, kind) for kind in DELTA}
            said = {**below[at], "delta": len(held.keys)}
        for file, array in arrays.items():
            files[file] = write_file(work / file, array)
        tables.append({**said, "model": model, "table": name, "version": table.version, "layout": table.layout,
                       "published": held.published.tolist(),
                       "admission": {kind: array.dtype.name for kind, array in held.admission.items()}})
    pages = np.frombuffer(b"".join(data for _, _, data in cut.rings), np.uint8)
    files["rings"] = write_file(work / "rings", pages)
    rings = [[*key, page] for key, page, _ in cut.rings]
    seal(work, {"format": WITH_BASE if cut.base else FORMAT, "sequence": cut.sequence, "base": cut.base, "epoch": cut.epoch,
                "tables": tables, "rings": rings, "files": files, "firsts": [[*key, page, dropped] for key, page, dropped in cut.firsts],
                "clocks": cut.clocks})
    work.rename(final)
    sync_folder(folder)
    for old in _spare(folder):
        shutil.rmtree(old)
    return final


def _linked(folder: Path, base: int, work: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Link the rows of the full snapshot of sequence `base`, which others may hold too, into `work`: what its manifest says of the files,
    and of the tables by MODEL.TABLE."""
    source = next((path for sequence, path in reversed(folders(folder)) if _base(sequence, path) == base), None)
    if source is None:
        raise ValueError(f"no snapshot in {folder} holds the rows of the full one of sequence {base}")
    manifest = sealed(source)
    files, tables = {}, {}
    for said in manifest["tables"]:
        at = f"{said['model']}.{said['table']}"
        tables[at] = {name: said[name] for name in ("rows", "width", "dtype")}
        for kind in ("keys", "rows", "touched"):
            if (file := f"{at}.{kind}") in manifest["files"]:
                os.link(source / file, work / file)
                files[file] = manifest["files"][file]
    return files, tables


def _spare(folder: Path) -> list[Path]:
    """What is kept no more: all but the newest two, and the newest with the bytes of another full snapshot than the newest's."""
    held = folders(folder)
    kept, rest = held[-KEPT:], held[:-KEPT]
    bases = [_base(*one) for one in kept]
    if rest and len(set(bases)) == 1:
        other = next((one for one in reversed(rest) if _base(*one) != bases[0]), None)
        rest = [one for one in rest if one != other]
    return [path for _, path in rest]


def _base(sequence: int, path: Path) -> int:
    """The full snapshot whose rows it holds; itself, when it is one or cannot be read."""
    try:
        return sealed(path).get("base") or sequence
    except (ValueError, OSError):
        return sequence


def read_newest(folder: Path) -> Cut | None:
    """The newest snapshot that holds together, None when there is none at all. A broken one is refused, said in the log and renamed
    NAME.broken, and the one before is used; when all are broken, None too: the log may still reach back to the beginning (ps/recovery.py).
    """
    for stale in folder.glob(".writing-*"):
        shutil.rmtree(stale)
    held = folders(folder)
    for _, path in reversed(held):
        try:
            return read(path)
        except (ValueError, KeyError, TypeError, OSError) as error:
            log.error("snapshot %s is refused: %s", path, error)
            shutil.rmtree(path.with_suffix(".broken"), ignore_errors=True)
            path.rename(path.with_suffix(".broken"))
    return None


def read(path: Path) -> Cut:
    """The full cut in the snapshot folder `path`. Raises ValueError (KeyError, TypeError, OSError) when it does not hold together."""
    manifest = sealed(path)
    if manifest["format"] not in READ:
        raise ValueError(f"format {manifest['format']}, this version reads {READ}")
    tables = {(said["model"], said["table"]): TableCut(said["version"], said["layout"], table_of(path, manifest, said))
              for said in manifest["tables"]}
    raw = read_file(path / "rings", manifest["files"]["rings"]).tobytes()
    rings = [(RingKey(*key), page, raw[i * _PAGE_BYTES : (i + 1) * _PAGE_BYTES]) for i, (*key, page) in enumerate(manifest["rings"])]
    # Snapshots of before did not count what was dropped.
    firsts = [(RingKey(*one[:4]), one[4], one[5] if len(one) > 5 else 0) for one in manifest.get("firsts", [])]
    return Cut(manifest["sequence"], manifest["epoch"], tables, rings, firsts, manifest.get("clocks", {}))


def table_of(path: Path, manifest: dict[str, Any], said: dict[str, Any]) -> Stored:
    """The table that `said`, of the manifest's tables, is of, whole. Raises as `read` does."""
    at, published = f"{said['model']}.{said['table']}", np.array(said["published"], np.int64)

    def array(name: str, dtype: Any) -> np.ndarray:
        file = f"{at}.{name}"
        return read_file(path / file, manifest["files"][file]).view(dtype) if file in manifest["files"] else NOTHING.view(dtype)

    waiting = {kind: array(f"admission.{kind}", dtype) for kind, dtype in said.get("admission", {}).items()}

    def stored(below: str, kinds: dict[str, Any], rows: int) -> Stored:
        held = {kind: array(below + kind, dtype) for kind, dtype in kinds.items() if kind not in ("rows", "gone", "removed")}
        return Stored(rows=array(f"{below}rows", said["dtype"]).reshape(rows, said["width"]), gone=array("gone", np.uint64),
                      published=published, admission=waiting, **held)

    full = stored("", ARRAYS, said["rows"])
    if "delta" not in said:
        return full
    return Delta(stored("delta.", DELTA, said["delta"]), array("delta.removed", np.uint64)).over(full)
