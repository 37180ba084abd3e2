"""A snapshot: rows with their optimizer slots, what is unpublished, and the rings, all of one cut.

SEQUENCE/ holds `MODEL.TABLE.keys`, `.rows`, `.changed` (raw little-endian arrays in the order of row numbers), `rings` (512-byte pages)
and, written last, `manifest.json`: a line of JSON with the sha256 of every file, then a line with its own sha256. Files and folders are
synced before the folder gets its name. The snapshot before is kept, and read when the newest is broken.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.rpc.causes import PAGE_BITS, RingKey

log = logging.getLogger(__name__)
FORMAT = 1
KEPT = 2
_PAGE_BYTES = PAGE_BITS // 8


class SnapshotError(Exception):
    """No snapshot of the folder can be read, and the log does not reach back: restore the shard's folder from a copy, or backfill."""


class TableCut(NamedTuple):
    """keys uint64[n], rows [n, width], changed int64[c] row numbers not published yet, published int64[64]; layout: TableSpec.layout()."""

    version: int
    layout: list[Any]
    keys: np.ndarray
    rows: np.ndarray
    changed: np.ndarray
    published: np.ndarray


class Cut(NamedTuple):
    """A shard at one sequence, in memory of its own. `tables` by (model, table); `firsts`: the first page that a ring keeps."""

    sequence: int
    epoch: int
    tables: dict[tuple[str, str], TableCut]
    rings: list[tuple[RingKey, int, bytes]]
    firsts: list[tuple[RingKey, int]]


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
        for kind in ("keys", "rows", "changed"):
            files[f"{model}.{name}.{kind}"] = _write_file(work / f"{model}.{name}.{kind}", getattr(table, kind))
        tables.append({"model": model, "table": name, "version": table.version, "layout": table.layout, "rows": len(table.keys),
                       "width": int(table.rows.shape[1]), "dtype": table.rows.dtype.name, "published": table.published.tolist()})
    pages = np.frombuffer(b"".join(data for _, _, data in cut.rings), np.uint8)
    files["rings"] = _write_file(work / "rings", pages)
    rings = [[*key, page] for key, page, _ in cut.rings]
    line = json.dumps({"format": FORMAT, "sequence": cut.sequence, "epoch": cut.epoch, "tables": tables, "rings": rings, "files": files,
                       "firsts": [[*key, page] for key, page in cut.firsts]})
    _write_file(work / "manifest.json", np.frombuffer(f"{line}\n{hashlib.sha256(line.encode()).hexdigest()}\n".encode(), np.uint8))
    _sync(work)
    work.rename(final)
    _sync(folder)
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
    line, own = (path / "manifest.json").read_text().split("\n")[:2]
    if hashlib.sha256(line.encode()).hexdigest() != own:
        raise ValueError("manifest.json does not have the sha256 that it says")
    manifest = json.loads(line)
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
    data = {name: _read_file(path / name, said) for name, said in manifest["files"].items()}
    tables = {}
    for said in manifest["tables"]:
        at = f"{said['model']}.{said['table']}"
        rows = data[f"{at}.rows"].view(said["dtype"]).reshape(said["rows"], said["width"])
        tables[said["model"], said["table"]] = TableCut(said["version"], said["layout"], data[f"{at}.keys"].view(np.uint64), rows,
                                                        data[f"{at}.changed"].view(np.int64), np.array(said["published"], np.int64))
    raw = data["rings"].tobytes()
    rings = [(RingKey(*key), page, raw[i * _PAGE_BYTES : (i + 1) * _PAGE_BYTES]) for i, (*key, page) in enumerate(manifest["rings"])]
    firsts = [(RingKey(*key), page) for *key, page in manifest.get("firsts", [])]
    return Cut(manifest["sequence"], manifest["epoch"], tables, rings, firsts)


def _write_file(path: Path, array: np.ndarray) -> dict[str, Any]:
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    with open(path, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def _read_file(path: Path, said: dict[str, Any]) -> np.ndarray:
    raw = np.fromfile(path, np.uint8)
    if len(raw) != said["bytes"] or hashlib.sha256(raw.data).hexdigest() != said["sha256"]:
        raise ValueError(f"{path.name} does not have the bytes and the sha256 that the manifest says")
    return raw


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
