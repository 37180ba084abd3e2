"""A snapshot: rows with their optimizer slots, what is unpublished, and the rings, all of one cut.

SEQUENCE/ holds `MODEL.TABLE.ARRAY` for each array of ps/stored.py's Stored (raw, little-endian; `admission.NAME` for what waits there),
`rings` (512-byte pages) and, written last, `manifest.json`: a line of JSON with the sha256 of every file, then a line with its own sha256.
Files and folders are synced before the folder gets its name. The snapshot before is kept, and read when the newest is broken.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.ps.sealed import read_file, seal, sealed, sync_folder, write_file
from headrace.ps.stored import Stored
from headrace.rpc.causes import PAGE_BITS, RingKey

log = logging.getLogger(__name__)
FORMAT = 2
READ = (1, 2)  # 1: without touched, gone, admission and clocks
KEPT = 2
ARRAYS = {"keys": np.uint64, "rows": None, "touched": np.uint32, "changed": np.int64, "gone": np.uint64}
NOTHING = np.zeros(0, np.uint8)
_PAGE_BYTES = PAGE_BITS // 8


class SnapshotError(Exception):
    """No snapshot of the folder can be read, and the log does not reach back: restore the shard's folder from a copy, or backfill."""


class TableCut(NamedTuple):
    """A table's rows, of a model's version; layout: TableSpec.layout()."""

    version: int
    layout: list[Any]
    stored: Stored


class Cut(NamedTuple):
    """A shard at one sequence, in memory of its own. `tables` by (model, table); `firsts`: first page that a ring keeps, bits dropped;
    `clocks`: event time in seconds by model."""

    sequence: int
    epoch: int
    tables: dict[tuple[str, str], TableCut]
    rings: list[tuple[RingKey, int, bytes]]
    firsts: list[tuple[RingKey, int, int]]
    clocks: dict[str, int]


def folders(folder: Path) -> list[tuple[int, Path]]:
    """(sequence, folder) of the finished snapshots, oldest first."""
    return sorted((int(path.name), path) for path in folder.glob("*") if path.name.isdigit())


def write(folder: Path, cut: Cut) -> Path:
    """Write `cut` under `folder`, drop all but the newest two; the snapshot's folder. Raises OSError and leaves the others as they are."""
    final = folder / f"{cut.sequence:020d}"
    if final.exists():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f".writing-{cut.sequence}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    files: dict[str, dict[str, Any]] = {}
    tables: list[dict[str, Any]] = []
    for (model, name), table in sorted(cut.tables.items()):
        held = table.stored
        arrays = {kind: getattr(held, kind) for kind in ARRAYS} | {f"admission.{kind}": array for kind, array in held.admission.items()}
        for kind, array in arrays.items():
            files[f"{model}.{name}.{kind}"] = write_file(work / f"{model}.{name}.{kind}", array)
        tables.append({"model": model, "table": name, "version": table.version, "layout": table.layout, "rows": len(held.keys),
                       "width": int(held.rows.shape[1]), "dtype": held.rows.dtype.name, "published": held.published.tolist(),
                       "admission": {kind: array.dtype.name for kind, array in held.admission.items()}})
    pages = np.frombuffer(b"".join(data for _, _, data in cut.rings), np.uint8)
    files["rings"] = write_file(work / "rings", pages)
    rings = [[*key, page] for key, page, _ in cut.rings]
    seal(work, {"format": FORMAT, "sequence": cut.sequence, "epoch": cut.epoch, "tables": tables, "rings": rings, "files": files,
                "firsts": [[*key, page, dropped] for key, page, dropped in cut.firsts], "clocks": cut.clocks})
    work.rename(final)
    sync_folder(folder)
    for _, old in folders(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


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
    """The cut in the snapshot folder `path`. Raises ValueError (KeyError, TypeError, OSError) when it does not hold together."""
    manifest = sealed(path)
    if manifest["format"] not in READ:
        raise ValueError(f"format {manifest['format']}, this version reads {READ}")
    data = {name: read_file(path / name, said) for name, said in manifest["files"].items()}
    tables = {}
    for said in manifest["tables"]:
        at = f"{said['model']}.{said['table']}"
        rows = data[f"{at}.rows"].view(said["dtype"]).reshape(said["rows"], said["width"])
        held = {kind: data.get(f"{at}.{kind}", NOTHING).view(dtype) for kind, dtype in ARRAYS.items() if kind != "rows"}
        waiting = {kind: data[f"{at}.admission.{kind}"].view(dtype) for kind, dtype in said.get("admission", {}).items()}
        tables[said["model"], said["table"]] = TableCut(said["version"], said["layout"], Stored(
            rows=rows, published=np.array(said["published"], np.int64), admission=waiting, **held))
    raw = data["rings"].tobytes()
    rings = [(RingKey(*key), page, raw[i * _PAGE_BYTES : (i + 1) * _PAGE_BYTES]) for i, (*key, page) in enumerate(manifest["rings"])]
    # Snapshots of before did not count what was dropped.
    firsts = [(RingKey(*one[:4]), one[4], one[5] if len(one) > 5 else 0) for one in manifest.get("firsts", [])]
    return Cut(manifest["sequence"], manifest["epoch"], tables, rings, firsts, manifest.get("clocks", {}))
