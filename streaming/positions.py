"""How far a job's stage has come in the topic that it reads, kept by us beside Flink's checkpoints, and what a checkpoint passed over.

A checkpoint of PyFlink 2.3 may complete behind records that nobody has worked on (docs/streaming.md, "A checkpoint that lies"), and the job
then goes on behind them. So each stage has the broker keep, in a consumer group that nobody joins, the offset before which all of a
partition was worked on in bundles that ended well. When the first record that it is given of a partition lies beyond, it reads what is
between from the topic itself, works on that first, and sends what comes of it. Every effect has its cause, so what was worked on before
all the same changes nothing.

A bundle's end is not seen from a function; but Flink hands out at most `behind` rows before it waits for the bundle to end. So a call's
rows are safe once as many have followed, and the successor of a worker that died reads up to that many again. A worker that is closed
after work that ended well leaves nothing to read again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from confluent_kafka import Consumer, KafkaException, TopicPartition

from headrace.schemas.access import Cluster
from headrace.streaming.transactions import ASK_S, member, offsets_of, words

COMMIT_EVERY_S = 0.2
READ_S = 30.0
ROWS = 1024  # read again at once
APPENDED_MAX = 65_536


class Unread(Exception):
    """The broker did not say where a stage stands, or gave nothing of what lies before: the job restarts and asks anew; see the broker."""


class Message(NamedTuple):
    """A record as Kafka keeps it; append_ms is the topic's timestamp."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    append_ms: int


@dataclass(frozen=True)
class Standing:
    """Where a stage reads and writes: `topic`, of which `group` holds how far it came; `into`, the sink's; `behind`: rows of a bundle."""

    group: str
    topic: str
    into: str
    behind: int


class Positions:
    """The positions of one worker's stage. Connects when it is made."""

    def __init__(self, where: Cluster | str, standing: Standing, every_s: float = COMMIT_EVERY_S) -> None:
        self._where, self._standing, self._every_s = where, standing, every_s
        self._member: Consumer = member(where, standing.group)
        self._seen: set[int] = set()
        self._calls: deque[tuple[int, dict[int, int]]] = deque()  # rows, partition -> the offset behind its last
        self._rows = 0
        self._safe: dict[int, int] = {}
        self._committed = 0.0
        self._working = False

    def missed(self, partition: np.ndarray, offset: np.ndarray) -> Iterator[list[Message]]:
        """Before a call's work on n records, partition int[n] and offset int64[n] in order: what lies between where the stage stood and
        the first of each partition that it has not met, up to 1024 records at a time; nearly always nothing. Raises Unread."""
        self._working = True
        first = {p: int(offset[partition == p].min()) for p in set(partition.tolist()) - self._seen}
        if not first:
            return
        try:
            stood = offsets_of(self._member, self._standing.topic, first)
            begun = [TopicPartition(self._standing.topic, p, at) for p, at in first.items() if stood[p] < 0]
            if begun:
                self._member.commit(offsets=begun, asynchronous=False)
        except KafkaException as error:
            raise Unread(f"{self._standing.group} at {self._where}: {words(error)}") from None
        for p, at in sorted(first.items()):
            if 0 <= stood[p] < at:
                yield from self._between(p, stood[p], at)
        self._seen |= set(first)

    def passed(self, partition: np.ndarray, offset: np.ndarray) -> None:
        """After a call's work; tells the broker what is safe, at most every 0.2 s, and does not wait for its answer."""
        self._working = False
        self._calls.append((len(offset), {p: int(offset[partition == p].max()) + 1 for p in set(partition.tolist())}))
        self._rows += len(offset)
        while self._rows - self._calls[0][0] >= self._standing.behind:
            rows, tops = self._calls.popleft()
            self._rows -= rows
            self._safe |= tops
        if self._safe and time.monotonic() - self._committed >= self._every_s:
            self._committed = time.monotonic()
            self._tell(wait=False)

    def close(self) -> None:
        """The bundles have ended: all is safe, unless a call did not end well."""
        if not self._working:
            for _, tops in self._calls:
                self._safe |= tops
            self._tell(wait=True)
        self._member.close()

    def _tell(self, wait: bool) -> None:
        where = [TopicPartition(self._standing.topic, p, at) for p, at in self._safe.items()]
        self._safe = {}
        try:
            if where and wait:
                self._member.commit(offsets=where, asynchronous=False)
            elif where:
                self._member.commit(offsets=where, asynchronous=True)
        except KafkaException:  # an older position is as safe
            pass

    def _between(self, partition: int, start: int, stop: int) -> Iterator[list[Message]]:
        """The records of a partition from `start` to before `stop`; those of the topic's other readers' kind, committed ones."""
        place = TopicPartition(self._standing.topic, partition, start)
        self._member.assign([place])
        ends = time.monotonic() + READ_S
        try:
            at = start
            while at < stop:
                found = self._member.consume(ROWS, 0.1)
                failed = [one.error() for one in found if one.error() is not None]
                if failed or (not found and time.monotonic() > ends):
                    said = failed[0] if failed else "nothing came"
                    raise Unread(f"partition {partition} of {self._standing.topic} from {at} to {stop}: {said}")
                batch = [Message(partition, _known(one.offset()), one.key(), one.value(), one.timestamp()[1]) for one in found
                         if _known(one.offset()) < stop]
                if batch:
                    ends = time.monotonic() + READ_S
                    yield batch
                # By position: a transaction's marker is an offset without a record. Before the first record there is none.
                at = max(at, self._member.position([place])[0].offset)
        except KafkaException as error:
            raise Unread(f"partition {partition} of {self._standing.topic}: {words(error)}") from None
        finally:
            self._member.unassign()


def appended(where: Cluster | str, topic: str, since_ms: int, most: int = APPENDED_MAX) -> Iterator[bytes | None]:
    """Values of what `topic` got from `since_ms` of its own clock on until now, at most so many of a partition. Raises Unread."""

    def span(reader: Consumer, partitions: list[int], stops: dict[int, int]) -> dict[int, tuple[int, int]]:
        starts = reader.offsets_for_times([TopicPartition(topic, p, since_ms) for p in partitions], timeout=ASK_S)
        found = {one.partition: one.offset for one in starts if one.offset >= 0}  # -1: nothing since then
        return {p: (at, min(stops[p], at + most)) for p, at in found.items()}

    return _values(where, topic, span)


def latest(where: Cluster | str, topic: str, most: int) -> Iterator[bytes | None]:
    """Values of the last records of `topic`, at most so many of a partition. Raises Unread."""
    return _values(where, topic, lambda reader, partitions, stops: {p: (max(0, stops[p] - most), stops[p]) for p in partitions})


def _values(where: Cluster | str, topic: str,
            span: Callable[[Consumer, list[int], dict[int, int]], dict[int, tuple[int, int]]]) -> Iterator[bytes | None]:
    """`span`: (first, behind the last) offset to read of partitions that end at `stops`."""
    reader = member(where, "headrace-look")
    try:
        partitions = sorted(reader.list_topics(topic, timeout=ASK_S).topics[topic].partitions)
        bounds = {p: reader.get_watermark_offsets(TopicPartition(topic, p), timeout=ASK_S) for p in partitions}
        wanted = {p: (max(start, bounds[p][0]), stop)
                  for p, (start, stop) in span(reader, partitions, {p: high for p, (_, high) in bounds.items()}).items()}
        left = {p: start for p, (start, stop) in wanted.items() if start < stop}
        reader.assign([TopicPartition(topic, p, at) for p, at in left.items()])
        ends = time.monotonic() + READ_S
        while left:
            found = reader.consume(ROWS, 0.1)
            ends = time.monotonic() + READ_S if found else ends  # what takes long is not stuck
            for one in found:
                if one.error() is not None:
                    raise Unread(f"{topic}: {one.error()}")
                if _known(one.offset()) < wanted[_known(one.partition())][1]:
                    yield one.value()
            if time.monotonic() > ends:
                raise Unread(f"{topic}, from {left} on: nothing comes")
            at = {one.partition: one.offset for one in reader.position([TopicPartition(topic, p) for p in left])}
            left = {p: begun for p, begun in left.items() if max(begun, at[p]) < wanted[p][1]}
    except KafkaException as error:
        raise Unread(f"{topic} at {where}: {words(error)}") from None
    finally:
        reader.close()


def _known(place: int | None) -> int:
    assert place is not None, "a record that was read lies somewhere"
    return place
