"""What the tests of the lake share: samples, topics in memory and in a file, the oracle, a writer over a folder."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path

import numpy as np

from headrace.lake import reader
from headrace.lake.columns import AT, FIELDS, KEY, PACKED
from headrace.lake.place import Place
from headrace.lake.source import Read, Topic
from headrace.lake.store import Folder, at
from headrace.lake.writer import Writer

RING = 4096
BEGIN_MS = 1_796_021_940_000  # 2026-11-30T06:59 UTC
F, K = 5, 2


def sample(offset, *, source=7, partition=1, target="click", label=0.0, ts_ms=None, note="", **more):
    """A record of `samples`; `note` tells records of one cause apart."""
    return {"source": source, "partition": partition, "offset": offset, "event_id": f"e{partition}-{offset}", "request_id": None,
            "scene": note, "user_id": f"u{offset % 3}", "item_id": f"i{offset % 5}",
            "ts_ms": BEGIN_MS + 997 * offset if ts_ms is None else ts_ms, "strategy": "wait",
            "target": target, "label": label, "weight": 1.0, "actions": "click" if label else "",
            "action_ts_ms": 5 if label else None, "feature_set": "base@0",
            "feature_keys": (np.arange(F, dtype="<u8") + np.uint64(2**63 + offset)).tobytes(),
            "feature_values": np.linspace(0, offset, F, dtype="<f4").tobytes(), "numbers": np.full(K, 0.1, "<f4").tobytes(),
            "features_sequence": offset, "model": None, "version": None, "score": None, "arms": ["layer=arm"], **more}


class ListTopic:
    """Partitions of samples in memory; `low`: offsets before it are gone."""

    def __init__(self, *partitions, topic_id="uuid-1"):
        self.partitions, self.id = [list(one) for one in partitions], topic_id
        self.low = [0] * len(partitions)
        self.batch = 3

    def topic(self):
        return Topic("samples", self.id)

    def marks(self):
        return {p: (self.low[p], len(one)) for p, one in enumerate(self.partitions)}

    def batches(self, start, stop):
        at = {p: max(start.get(p, 0), self.low[p]) for p in range(len(self.partitions))}
        while not stop.is_set():
            come = [(p, o) for p in at for o in range(at[p], min(at[p] + self.batch, len(self.partitions[p])))]
            at |= {p: o + 1 for p, o in come}
            yield [self.read(p, o) for p, o in come]

    def read(self, partition, offset):
        record = self.partitions[partition][offset]
        damaged = isinstance(record, str)
        return Read(partition, offset, 1000 + offset, None if damaged else record, record if damaged else "")


class FileTopic(ListTopic):
    """One in a file, for a writer in a process of its own: a line a record, partition and sample."""

    def __init__(self, path: Path):
        super().__init__(topic_id="uuid-file")
        self.path = path
        path.touch()

    def append(self, partition, record):
        packed = {name: record[name].hex() for name in PACKED}
        with self.path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps([partition, {**record, **packed}]) + "\n")

    def load(self):
        self.partitions, self.low = [[], []], [0, 0]
        with self.path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            for partition, record in map(json.loads, file.read().splitlines()):
                self.partitions[partition].append({**record, **{name: bytes.fromhex(record[name]) for name in PACKED}})


def store_of(lake, kind=Folder):
    """Of a folder, a place, or the store itself."""
    if isinstance(lake, Place):
        return at(lake)
    return kind(Path(lake)) if isinstance(lake, (str, Path)) else lake


def writer(lake, topic, *, ring=RING, store=Folder, now_ms=lambda: 1):
    return Writer(store_of(lake, store), topic.topic(), topic.marks(), topic.marks, ring_length=ring, now_ms=now_ms)


def drain(made, topic, commit_every=None):
    """Take what the topic has, commit after so many batches, and at the end."""
    stop = threading.Event()
    for number, batch in enumerate(topic.batches(dict(made.positions), stop), 1):
        if not batch:
            stop.set()
        made.take(batch)
        if commit_every and number % commit_every == 0:
            made.commit()
    made.commit()
    return made


def key_of(record):
    return tuple(record[name] for name in KEY)


def oracle(*partitions):
    """key -> the first record in the order of its partition, plain: what a lake of the topic holds."""
    found = {}
    for partition, records in enumerate(partitions):
        for offset, record in enumerate(records):
            if isinstance(record, dict):
                found.setdefault(key_of(record), (partition, offset, record))
    return found


def rows(folder, **chosen):
    return reader.read(folder, **chosen).to_pylist()


def is_the_lake_of(folder, *partitions, **chosen):
    """Every row of the lake is the oracle's, bit by bit, each once."""
    wanted, held = oracle(*partitions), rows(folder, **chosen)
    assert len(held) == len({key_of(row) for row in held}), "a sample is twice in the lake"
    assert {key_of(row) for row in held} == set(wanted)
    for row in held:
        partition, offset, record = wanted[key_of(row)]
        assert (row["at_partition"], row["at_offset"], row["at_ms"]) == (partition, offset, 1000 + offset)
        for name, kind in PACKED.items():
            assert np.array(row[name], kind.to_pandas_dtype()).tobytes() == record[name], name
        assert {name: row[name] for name in FIELDS if name not in PACKED} == {n: v for n, v in record.items() if n not in PACKED}
    assert not set(AT) & set(FIELDS)
