"""The ingest job: records of a topic that others write -> `interactions`, by a mapping, each once.

Its Python stage unwraps, maps and writes, in one Arrow crossing, and what leaves it is a count that nobody reads: the sink is the
transaction within the call (streaming/transactions.py). A record before the committed offset of its partition was written already: it is
counted and left out.

The job has no checkpoints: the group's offsets, which the transactions move, are all its state, and Flink begins there whenever it begins.
A checkpoint would be worse than none. When a bundle that a timer ended fails (its worker died), PyFlink 2.3 has the task failed from
outside and goes on with its mailbox; a checkpoint that waits there finds the bundle closed, takes that for done, and completes, with source
offsets behind records that nobody has worked on. (Seen: a worker ended while a bundle took two seconds; 3,911 records were passed over.)
"""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext

from headrace.schemas.codec import Codec, Registry
from headrace.schemas.errors import Malformed
from headrace.schemas.mapping import Mapping
from headrace.schemas.registry import RegistryClient
from headrace.streaming.featurize import Addresses
from headrace.streaming.ingested import Ingested, Reader
from headrace.streaming.kafka import FIRST_BYTES
from headrace.streaming.stage import WORLD, Stage, vectorised
from headrace.streaming.tables import Connection, raw_source
from headrace.streaming.transactions import NotWritten, OtherTopic, Part, Writers, group_of, source_of

RESULT = DataTypes.BIGINT()
# A transaction costs what it costs whatever it holds, at the broker too: many records at once, and at most twenty a second a partition.
BATCH_ROWS, BUNDLE_MS = 4096, 50
CHECKPOINT_MS = 0
COUNTS = ("ingested", "refused", "aside", "written_before")


class Ingest(Stage):
    """(value, partition, offset) of the topic -> BIGINT, the interactions made of the record, always 0 of one written before."""

    world = (*WORLD, NotWritten, OtherTopic)

    def __init__(self, addresses: Addresses, name: str, topic: str, source: int, mapping: Mapping, event_bytes_max: int,
                 marks: str = "", *, alone: bool = False) -> None:
        """`alone`: no other worker of the job reads the topic, so what a dead one left open is ended at once, not at the next record."""
        super().__init__(marks)
        self.alone = alone
        self.addresses, self.name, self.topic, self.source = addresses, name, topic, source
        self.mapping, self.event_bytes_max = mapping, event_bytes_max

    def open(self, function_context: FunctionContext) -> None:
        self.guard(f"ingest-{self.name}-{self.source}")
        now = source_of(self.addresses.kafka, self.topic)
        if now != self.source:
            raise OtherTopic(f"topic {self.topic} was made anew since the ingest {self.name} was submitted: submit it again, and it begins"
                             " at the new topic's beginning")
        self.prepare(RegistryClient(self.addresses.registry), Writers(self.addresses.kafka, group_of(self.name, self.source), self.topic))
        if self.alone:
            self.writers.begin()
        metrics = function_context.get_metric_group()
        self.counters = {count: metrics.counter(count) for count in COUNTS}

    def prepare(self, registry: Registry, writers: Writers) -> None:
        """What reads and writes."""
        self.reader = Reader(self.mapping, self.source, Codec("interactions", registry), registry, self.event_bytes_max)
        self.letters = Codec("dead-letters", registry)
        self.writers = writers
        self.last: dict[int, int] = {}

    def eval(self, value: pd.Series, partition: pd.Series, offset: pd.Series) -> pd.Series:
        values, partitions, offsets = value.tolist(), partition.to_numpy(np.int64), offset.to_numpy(np.int64)
        new = self._new(partitions, offsets)
        found = Ingested.empty(len(values))
        chosen = np.flatnonzero(new)

        def work(rows: np.ndarray) -> None:
            at = chosen[rows]
            self.reader.read([values[row] for row in at.tolist()], partitions[at].tolist(), offsets[at].tolist(), at.tolist(), found)

        self.quarantine.run(partitions[chosen], offsets[chosen], work,
                            lambda row, detail: found.refuse(int(chosen[row]), Malformed("poison", detail)))
        self._write(values, partitions, offsets, chosen, found)
        self._count(found, len(values) - len(chosen))
        return pd.Series([len(messages) for messages in found.messages], dtype="int64")

    def _new(self, partitions: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """bool[n]: what no committed transaction holds. Raises OtherTopic when Flink passes records over, or a partition begins again."""
        new = np.zeros(len(offsets), bool)
        for partition in np.unique(partitions).tolist():
            rows = partitions == partition
            first, following = int(offsets[rows].min()), self.writers.next(partition)
            if partition not in self.last and first > following and self.writers.first(partition) < first:
                raise OtherTopic(f"partition {partition} of {self.topic} was to go on at offset {following}, and Flink begins at {first}:"
                                 f" submit {self.name} without a savepoint, its group says where it stands")
            if first <= self.last.get(partition, -1):
                raise OtherTopic(f"partition {partition} of {self.topic} goes on at offset {first} behind {self.last[partition]}: the topic"
                                 " was made anew")
            new[rows] = offsets[rows] >= following
            self.last[partition] = int(offsets[rows].max())
        return new

    def _write(self, values: list[bytes | None], partitions: np.ndarray, offsets: np.ndarray, chosen: np.ndarray, found: Ingested) -> None:
        """The transactions of this call; a record that became nothing moves its partition's offset alone."""
        parts: dict[int, Part] = {}
        for row, partition, offset in zip(chosen.tolist(), partitions[chosen].tolist(), offsets[chosen].tolist(), strict=True):
            part = parts.setdefault(partition, Part())
            part.following = offset + 1
            part.records += [("interactions", key, message) for key, message in found.messages[row]]
            if row in found.refused:
                part.records.append(("dead-letters", None, self._letter(partition, offset, found.refused[row], values[row])))
        if parts:
            self.writers.write(parts)

    def _letter(self, partition: int, offset: int, error: Malformed, value: bytes | None) -> bytes:
        return self.letters.encode({
            "topic": self.topic, "partition": partition, "offset": offset, "reason": error.reason, "detail": error.detail[:1024],
            "first_bytes": (value or b"")[:FIRST_BYTES], "ts_ms": int(time.time() * 1000)})

    def _count(self, found: Ingested, before: int) -> None:
        made = Counter(ingested=sum(map(len, found.messages)), refused=len(found.refused), aside=found.aside.total(), written_before=before)
        for name, count in made.items():
            if count:
                self.counters[name].inc(count)

    def close(self) -> None:
        super().close()
        if hasattr(self, "writers"):  # open may have failed
            self.writers.close()


def tables(connection: Connection, topic: str, group: str) -> list[str]:
    """The topic, and a sink that takes everything. The group's offsets are moved by transactions alone: where it begins, and goes on
    without a checkpoint. A partition that is added is read from its beginning."""
    more = {"properties.commit.offsets.on.checkpoint": "false", "scan.topic-partition-discovery.interval": "60 s",
            "properties.group.id": group}
    return [raw_source(connection, "records", topic, "", more),
            "CREATE TEMPORARY TABLE nowhere (`made` BIGINT) WITH ('connector' = 'blackhole')"]


def insert() -> str:
    """One evaluation a record, in the partition's order: the stage is chained to the source."""
    return "INSERT INTO nowhere SELECT ingest(`value`, `partition`, `offset`) FROM records"


def ingest(stage: Ingest, ship: bool = False):
    """The vectorised, non-deterministic UDF `ingest`."""
    return vectorised(stage, RESULT, ship)
