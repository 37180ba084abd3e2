"""RocksDB under a feature shard: rows, frozen samples, ring pages and counts; and the log of blocks. The only importer of rocksdict.

Everything is raw bytes (raw_mode: the other mode unpickles what it reads). Keys are big-endian, so that a range is a span of offsets.
A batch outlives the process's death (kill -9), not a power cut: the write-ahead log is not synced.
"""

from __future__ import annotations

import collections
import itertools
import json
import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from rocksdict import AccessType, BlockBasedOptions, Cache, Checkpoint, DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

from headrace.features.block_log import BlockLog, Writes

WAL_BYTES_MAX, WRITE_BUFFER_BYTES, GROUP_BUFFER_BYTES = 256 << 20, 64 << 20, 16 << 20
ROOM_BYTES = 16 << 20
log = logging.getLogger(__name__)
_GONE = {"frozen"}  # of versions before: answers by cause
FAMILIES = ("users", "items", "answers", "blocks", "rings", "names", "meta")
_RING_PAGE = struct.Struct(">Q")
_RING_FIRST = b"first "
Read = Callable[[list[bytes]], np.ndarray]


def _options(buffer_bytes: int = WRITE_BUFFER_BYTES) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(buffer_bytes)
    options.set_max_write_buffer_number(4)
    options.set_max_background_jobs(2)
    options.set_max_total_wal_size(WAL_BYTES_MAX)  # else families that hardly change keep every log since their last flush
    options.set_max_open_files(-1)
    options.set_keep_log_file_num(4)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(128 << 20))
    blocks.set_bloom_filter(10, False)
    options.set_block_based_table_factory(blocks)
    return options


class Batch:
    """Writes that become visible and durable together."""

    def __init__(self, families: dict[str, Any]) -> None:
        self._families = families
        self.batch = WriteBatch(raw_mode=True)

    def put_rows(self, family: str, keys: np.ndarray, rows: np.ndarray) -> None:
        """Rows (structured, n) under distinct uint64[n] keys."""
        self.put_all(family, split(keys.astype(">u8").tobytes(), 8), split(rows.tobytes(), rows.dtype.itemsize))

    def put_all(self, family: str, keys: list[bytes], values: list[bytes]) -> None:
        """As `put`, of each."""
        collections.deque(map(self.batch.put, keys, values, repeat(self._families[family])), maxlen=0)  # a loop that Python does not run

    def put(self, family: str, key: bytes, value: bytes) -> None:
        self.batch.put(key, value, self._families[family])

    def delete(self, family: str, key: bytes) -> None:
        self.batch.delete(key, self._families[family])

    def delete_range(self, family: str, start: bytes, end: bytes) -> None:
        """Delete the keys from `start` up to, not including, `end`."""
        self.batch.delete_range(start, end, self._families[family])


class FeatureStore:
    """Opens a folder for one process (a second opener gets an IO error about LOCK). Used by one thread."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_options = WriteOptions()
        self._open()

    def _open(self) -> None:
        path = self.path
        known = Rdict.list_cf(str(path), _options()) if (path / "CURRENT").exists() else []
        families = {name: _options(WRITE_BUFFER_BYTES if name in FAMILIES else GROUP_BUFFER_BYTES)
                    for name in {*FAMILIES, *known} - {"default"}}
        self.log = BlockLog(path / "blocks")
        self._db = Rdict(str(path), _options(), column_families=families, access_type=AccessType.read_write())
        for name in families.keys() & _GONE:
            self._db.drop_column_family(name)
            del families[name]
        self._columns = {name: self._db.get_column_family(name) for name in families}
        self._handles = {name: self._db.get_column_family_handle(name) for name in families}

    def try_write(self) -> None:
        """Raises OSError when the disk does not take what opening the store needs."""
        file = self.path / "room"
        try:
            file.write_bytes(bytes(ROOM_BYTES))
        finally:
            file.unlink(missing_ok=True)

    def reopen(self) -> None:
        """Close and open again: after a failed write (a full disk) the handle stays failed for ever, the folder does not."""
        self.close()
        self._open()

    def add_family(self, name: str) -> None:
        """Have a column family of rows `name`, new or not."""
        if name not in self._handles:
            self._columns[name] = self._db.create_column_family(name, _options(GROUP_BUFFER_BYTES))
            self._handles[name] = self._db.get_column_family_handle(name)

    def families(self) -> list[str]:
        return list(self._handles)

    def batch(self, writes: Writes | None = None) -> Batch:
        """One of these writes, or an empty one."""
        made = Batch(self._handles)
        if writes:
            writes.into(made)
        return made

    def checkpoint(self, folder: Path) -> None:
        """A copy of all families, as they are now, in a new folder; by links, where it is on the same disk."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        Checkpoint(self._db).create_checkpoint(str(folder))

    def write(self, batch: Batch) -> None:
        """Write it, whole or not at all."""
        self._db.write(batch.batch, self._write_options)

    def rows(self, family: str, keys: np.ndarray, dtype: np.dtype, read: Read | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(rows dtype[n], found bool[n]) of uint64[n] keys; a missing row is all zeros.

        `read` makes rows of what the store holds, when they may lie in another way there. Without it raises AssertionError for a row of
        another layout: the store is of another version of the feature set.
        """
        held = self.get(family, split(keys.astype(">u8").tobytes(), 8))
        found = np.array([row is not None for row in held], bool)
        rows = np.zeros(len(keys), dtype)
        if found.any():
            plain = [row for row in held if row is not None]
            rows[found] = (read(plain) if read else _plain(family, plain, dtype)).view(dtype).reshape(-1)
        return rows, found

    def get(self, family: str, keys: list[bytes]) -> list[bytes | None]:
        """Multi-get; None where there is nothing."""
        column: Any = self._columns[family]  # typed for its other mode, in which values are Python objects
        return column.get(keys) if keys else []

    def scan(self, family: str) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value in order."""
        yield from self._columns[family].items()

    def some(self, family: str, since: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """Up to `count` keys from `since` on, in order, with their values."""
        items: Any = self._columns[family].items(from_key=since)  # typed for its other mode
        return list(itertools.islice(items, count))

    def meta(self) -> dict[str, int]:
        """The shard's counts as written last; empty for a new store."""
        data = self._columns["meta"].get(b"counts")
        return json.loads(data) if data else {}

    def note(self, key: bytes) -> bytes | None:
        """What was put under `key` by `put_note`."""
        return self._columns["meta"].get(key)  # type: ignore[no-any-return]

    def put_note(self, key: bytes, value: bytes) -> None:
        batch = self.batch()
        batch.put("meta", key, value)
        self.write(batch)

    def names(self, keys: np.ndarray) -> list[str | None]:
        """ "field=value" of uint64[n] keys; None where it was never told."""
        held = self.get("names", split(keys.astype(">u8").tobytes(), 8))
        return [name.decode() if name is not None else None for name in held]

    def put_names(self, keys: Iterable[int], names: Iterable[str]) -> None:
        batch = self.batch()
        for key, name in zip(keys, names, strict=True):
            batch.put("names", key.to_bytes(8, "big"), name.encode())
        self.write(batch)

    def bytes_held(self) -> int:
        """Bytes of tables on disk and in memory, approximately, and of the log."""
        return self.log.bytes() + sum(int(column.property_int_value(name) or 0) for column in self._columns.values()
                   for name in ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"))

    def held(self) -> dict[str, dict[str, int]]:
        """family -> rows and bytes on disk and in memory, both approximately: what was deleted is counted until it is compacted."""
        names = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")
        return {family: {"rows": int(column.property_int_value("rocksdb.estimate-num-keys") or 0),
                         "bytes": sum(int(column.property_int_value(name) or 0) for name in names)}
                for family, column in self._columns.items()}

    def compacted_bytes(self, family: str) -> int:
        """Compact a family, and tell the bytes of its files."""
        column: Any = self._columns[family]
        column.flush()
        column.compact_range(None, None)
        return int(column.property_int_value("rocksdb.live-sst-files-size") or 0)

    def close(self) -> None:
        """Close; every handle first, because one alive keeps the folder locked."""
        self.log.close()
        self._handles.clear()
        for one in (*self._columns.values(), self._db):
            try:
                one.close()
            except Exception as error:  # after a failed write it cannot flush; what it did not write is in its log
                log.warning("closing the store: %s", error)
        self._columns.clear()


def _plain(family: str, held: list[bytes], dtype: np.dtype) -> np.ndarray:
    data = b"".join(held)
    assert len(data) == len(held) * dtype.itemsize, f"{family} holds rows of another layout than {dtype.itemsize} bytes"
    return np.frombuffer(data, dtype)


def rows_of(store: FeatureStore, of: str) -> list[str]:
    """Families that have rows under the row key of a user or an item (`of`) itself. Rows of pairs, as user x item.author, lie under a hash
    of both, from which neither is found."""
    return [name for name in store.families() if name in (f"{of}s", f"group {of}", "names")]


def split(data: bytes, width: int) -> list[bytes]:
    return [data[at : at + width] for at in range(0, len(data), width)]


def counts_bytes(counts: dict[str, int]) -> bytes:
    return json.dumps(counts).encode()


def ring_page_key(scope: str, source: int, partition: int, effect: str, page: int) -> bytes:
    """Key of a ring's page in `rings`: its ring as JSON, then the page's number."""
    return json.dumps([scope, source, partition, effect]).encode() + _RING_PAGE.pack(page)


def ring_first_key(scope: str, source: int, partition: int, effect: str) -> bytes:
    """Key in `meta` of the first page that a ring keeps."""
    return _RING_FIRST + json.dumps([scope, source, partition, effect]).encode()


def ring_first_of(key: bytes) -> tuple[str, int, int, str] | None:
    """The ring that a key of `meta` tells the first page of, None for another key."""
    return tuple(json.loads(key[len(_RING_FIRST) :])) if key.startswith(_RING_FIRST) else None


def ring_page_of(key: bytes) -> tuple[str, int, int, str, int]:
    scope, source, partition, effect = json.loads(key[:-8])
    return scope, source, partition, effect, _RING_PAGE.unpack(key[-8:])[0]
