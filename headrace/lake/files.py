"""Parquet files of a lake: one a commit and hour of event time, zstd, with a checksum in every page."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from headrace.arrow_memory import copied
from headrace.lake.errors import LakeDamaged
from headrace.lake.manifest import RESTORE, REWRITTEN, File, Label, Span
from headrace.lake.store import TEMPORARY, Store
from headrace.rpc.causes import Causes

FOLDER = "samples"
HOUR_MS = 3_600_000


def write(store: Store, table: pa.Table, number: int, mark: str = "") -> list[File]:
    """The rows of a commit, in the order of event time, by hour; `mark` is its writer's (Store.mark). On the disk when it returns, and no
    data before a manifest names them."""
    order = np.lexsort((table["at_offset"].to_numpy(), table["at_partition"].to_numpy(), table["ts_ms"].to_numpy()))
    table = table.take(order)
    hours = table["ts_ms"].to_numpy() // HOUR_MS
    begins = [*np.nonzero(np.diff(hours, prepend=hours[:1] - 1))[0].tolist(), len(hours)]
    return [put(store, f"{FOLDER}/{hour_of(int(hours[first]))}/{number:08d}{mark}.parquet", table.slice(first, stop - first))
            for first, stop in itertools.pairwise(begins)]


def hour_of(hour: int) -> str:
    """day=2026-11-30/hour=07 of hours since 1970, UTC."""
    return f"day={np.datetime64(hour, 'h').astype('datetime64[D]')}/hour={hour % 24:02d}"


def put(store: Store, path: str, table: pa.Table) -> File:
    """Rows of an hour as a file."""
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue()
    store.put(path, data)
    ts_ms, labels = table["ts_ms"].to_numpy(), dict[str, Label]()
    for target in pc.unique(table["target"]).to_pylist():
        label = table["label"].filter(pc.equal(table["target"], target)).to_numpy()
        labels[target] = Label(len(label), int((label > 0).sum()))
    causes = Causes(*(table[name].to_numpy() for name in ("source", "partition", "offset")))
    return File(path, len(table), data.size, hashlib.sha256(data).hexdigest(), int(ts_ms.min()), int(ts_ms.max()), labels,
                _spans(table["target"].to_pylist(), causes))


def _spans(target: Sequence[str], causes: Causes) -> list[Span]:
    """The ranges of causes of a file's rows."""
    found: dict[tuple[str, int, int], tuple[int, int]] = {}
    keys = zip(target, causes.source.tolist(), causes.partition.tolist(), strict=True)
    for key, offset in zip(keys, causes.offset.tolist(), strict=True):
        first, last = found.get(key, (offset, offset))
        found[key] = min(first, offset), max(last, offset)
    return [Span(*key, first, last) for key, (first, last) in sorted(found.items())]


def read(store: Store, file: File, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of a file that a manifest names, all by default; one that the file does not have yet is left out. Every byte of the file is
    checked, which costs a tenth of reading it: Parquet's own checksums leave out its footer. Raises LakeDamaged."""
    data = checked(store, file)
    with pyarrow.parquet.ParquetFile(pa.BufferReader(copied(data))) as opened:
        return opened.read(None if columns is None else [name for name in columns if name in opened.schema_arrow.names])


def checked(store: Store, file: File) -> bytes:
    """The bytes of a file. Raises LakeDamaged unless they are what was written."""
    try:
        data = store.get(file.path)
    except FileNotFoundError:
        raise LakeDamaged(f"{store}/{file.path} is missing, and a manifest names it: {RESTORE}") from None
    except OSError as error:
        raise LakeDamaged(f"{store}/{file.path} cannot be read ({error.strerror}): {RESTORE}") from None
    if len(data) != file.bytes:
        raise LakeDamaged(f"{store}/{file.path} has {len(data):,} bytes, and its manifest says {file.bytes:,}: {RESTORE}")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise LakeDamaged(f"{store}/{file.path} does not have the sha256 that its manifest says: {RESTORE}")
    return data


def rewritten(name: str) -> bool:
    """A file's name is of a rewriting, which tidies up for itself, and not of a commit."""
    return name.rpartition("/")[2].lstrip(".").startswith(REWRITTEN)


def commit_of(name: str) -> int:
    """The commit that wrote a file of this name; 0 when none did."""
    digits = name.rpartition("/")[2].lstrip(".").partition(".")[0].partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def generation_of(name: str) -> int:
    """The rewriting that wrote a file of this name; 0 when none did."""
    digits = name.rpartition("/")[2].removeprefix(REWRITTEN).partition("-")[0]
    return int(digits) if rewritten(name) and digits.isdigit() else 0


def leftovers(store: Store, held: Sequence[File], number: int, through: int = 0) -> Iterator[str]:
    """Names of what the commit `number`, which has no manifest, left; where there are no locks, also an earlier commit that another was
    before. Those of commits up to `through` that are not named are being replaced. Raises LakeDamaged for other files that no manifest
    names: then manifests are missing, and those files are data."""
    known = {file.path for file in held}
    for name in store.names(FOLDER):
        replaced = rewritten(name) or 0 < commit_of(name) <= through
        if name not in known and name.endswith((TEMPORARY, ".parquet")) and not replaced:
            of = commit_of(name)
            if not name.endswith(TEMPORARY) and not (of == number or (0 < of < number and not store.locks)):
                raise LakeDamaged(f"{store}/{name} is of a commit whose manifest is missing (the last one is {number - 1}): {RESTORE}")
            yield name
