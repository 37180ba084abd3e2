"""A feature store in memory, of the interface of features/store.py: RocksDB opens in 50 ms, hundreds of seeds want less."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace.features.block_log import Record, Writes
from headrace.features.store import FAMILIES


class MemoryBatch:
    """Writes in order, applied together."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, bytes, bytes | None]] = []

    def put_rows(self, family: str, keys: np.ndarray, rows: np.ndarray) -> None:
        for key, row in zip(keys.tolist(), rows, strict=True):
            self.put(family, key.to_bytes(8, "big"), row.tobytes())

    def put(self, family: str, key: bytes, value: bytes) -> None:
        self.writes.append((family, key, value))

    def delete(self, family: str, key: bytes) -> None:
        self.delete_range(family, key, key + b"\0")

    def delete_range(self, family: str, start: bytes, end: bytes) -> None:
        self.writes.append((family, start, None))
        self.writes.append((family, end, None))


class MemoryLog:
    """Records of blocks, as a folder of segments keeps them."""

    segment_bytes = 0

    def __init__(self) -> None:
        self.held: list[tuple[int, np.ndarray, bytes]] = []

    def records(self) -> Iterator[Record]:
        for number, words, writes in self.held:
            yield Record(number, words, Writes.of(writes))

    def append(self, number: int, words: np.ndarray, writes: Writes) -> int:
        self.held.append((number, words.copy(), writes.packed()))
        return words.nbytes

    def cut(self, number: int) -> None:
        self.held = [one for one in self.held if one[0] >= number]

    def clear(self) -> None:
        self.held = []


class MemoryStore:
    """What was written outlives the shard over it, as a folder outlives its process."""

    def __init__(self) -> None:
        self.held: dict[str, dict[bytes, bytes]] = {name: {} for name in FAMILIES}
        self.log = MemoryLog()

    def add_family(self, name: str) -> None:
        self.held.setdefault(name, {})

    def families(self) -> list[str]:
        return list(self.held)

    def note(self, key: bytes) -> bytes | None:
        return self.held["meta"].get(key)

    def put_note(self, key: bytes, value: bytes) -> None:
        self.held["meta"][key] = value

    def batch(self, writes: Writes | None = None) -> MemoryBatch:
        made = MemoryBatch()
        if writes:
            writes.into(made)
        return made

    def write(self, batch: Any) -> None:
        writes = iter(batch.writes)
        for family, key, value in writes:
            held = self.held[family]
            if value is not None:
                held[key] = value
                continue
            _, end, _ = next(writes)
            for inside in [one for one in held if key <= one < end]:
                del held[inside]

    def rows(self, family: str, keys: np.ndarray, dtype: np.dtype, read: Any = None) -> tuple[np.ndarray, np.ndarray]:
        found = [self.held[family].get(key.to_bytes(8, "big")) for key in keys.tolist()]
        data = b"".join(bytes(dtype.itemsize) if row is None else row for row in found)
        return np.frombuffer(data, dtype).copy(), np.array([row is not None for row in found], bool)

    def get(self, family: str, keys: list[bytes]) -> list[bytes | None]:
        return [self.held[family].get(key) for key in keys]

    def scan(self, family: str) -> Iterator[tuple[bytes, bytes]]:
        yield from sorted(self.held[family].items())

    def meta(self) -> dict[str, int]:
        data = self.held["meta"].get(b"counts")
        return json.loads(data) if data else {}

    def try_write(self) -> None:
        pass

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass
