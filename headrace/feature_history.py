"""The events that features were folded of, in the order in which the service folded them: from the topics, or from a log never sent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from headrace.config import Config
from headrace.lake.erasing import hash_of
from headrace.rows import Rows

Record = Mapping[str, Any]
ROWS_A_CALL, LATER_A_CALL, QUIET_S = 2048, 1 << 14, 0.2


class History(Protocol):
    """`source`, for people; `sent`: whether its past was folded by the stream, and so ends where a definition began."""

    source: str
    sent: bool

    def before(self, since: int) -> Iterator[Record]:
        """What comes before the event that was folded as `since`, in order."""

    def count(self, since: int) -> int:
        """How many there are of these."""

    def later(self, at: int) -> Sequence[Record]:
        """Some of those from `at` on, without a gap; empty when there is none yet."""


class Folded:
    """Topics, as they were read: sent interactions by (partition, offset), and what `enriched` says of when each was folded."""

    source, sent = "interactions", True

    def __init__(self, interactions: Mapping[tuple[int, int], Record] | None = None, enriched: Iterable[Record] = ()) -> None:
        self._sent: dict[tuple[int, int], Record] = {}
        self._at: dict[int, tuple[tuple[int, int], int]] = {}  # sequence -> where it lies in interactions, its time
        self.take(interactions or {}, enriched)

    def take(self, interactions: Mapping[tuple[int, int], Record], enriched: Iterable[Record]) -> None:
        self._sent.update(interactions)
        for record in enriched:
            if record["folded"] >= 0:  # no heartbeat, no retry
                self._at.setdefault(record["folded"], ((record["partition"], record["offset"]), record["ts_ms"]))

    def _erased(self, place: tuple[int, int], event: Record) -> bool:
        """Whether an event is of somebody who was erased behind it: their past comes back to no row."""
        return False

    def _event(self, at: int) -> Record | None:
        place, ts_ms = self._at.get(at, ((-1, -1), 0))
        sent = self._sent.get(place)
        return None if sent is None else {**sent, "ts_ms": ts_ms}  # which may have been clamped

    def before(self, since: int) -> Iterator[Record]:
        for at in sorted(at for at in self._at if at < since):
            event = self._event(at)
            if event is not None and not self._erased(self._at[at][0], event):
                yield event

    def count(self, since: int) -> int:
        return sum(at < since and place in self._sent for at, (place, _) in self._at.items())

    def later(self, at: int) -> Sequence[Record]:
        found: list[Record] = []
        while len(found) < LATER_A_CALL and (event := self._event(at + len(found))) is not None:
            found.append(event)
        return found


Erasures = Mapping[tuple[str, str], Mapping[int, int]]
"""(user or item, hash of the id) -> partition of interactions -> offset before which what is theirs was erased."""


def erasures(config: Config) -> Erasures:
    """Of the records that `headrace data erase` has kept here, as far as they are of this topic."""
    from headrace import kafka
    from headrace.erasure import FOLDER

    made: dict[tuple[str, str], dict[int, int]] = {}
    for file in sorted((config.stack.data_dir / FOLDER).glob("*.json")):
        record = json.loads(file.read_text())
        if record["before"]["source"] == kafka.topic_source(config.kafka.cluster, "interactions"):
            made[record["of"], record["sha256"]] = {int(partition): offset for partition, offset in record["before"]["offsets"].items()}
    return made


class Topics(Folded):
    """A running stack's topics, in memory: read from their beginning when this is made, and on when later events are asked for."""

    def __init__(self, config: Config) -> None:
        from headrace.serve import Codecs

        super().__init__()
        self._cluster, self._codecs = config.kafka.cluster, Codecs(config)
        self._erasures = erasures(config)
        self._ends: dict[str, dict[int, int]] = {"interactions": {}, "enriched": {}}
        self._read_s = 0.0
        self._read()

    def later(self, at: int) -> Sequence[Record]:
        if not (found := super().later(at)) and time.monotonic() - self._read_s > QUIET_S:
            self._read()
            found = super().later(at)
        return found

    def _erased(self, place: tuple[int, int], event: Record) -> bool:
        return bool(self._erasures) and any(
            place[1] < self._erasures.get((of, hash_of(of, event[f"{of}_id"])), {}).get(place[0], 0) for of in ("user", "item"))

    def _read(self) -> None:
        """Raises KafkaUnavailable."""
        from headrace import kafka

        # enriched first: whatever is in it then is in interactions
        stops = {topic: {partition: high for partition, (_, high) in kafka.watermarks(self._cluster, topic).items()}
                 for topic in ("enriched", "interactions")}
        interactions = {(partition, offset): record for partition, offset, record in self._records("interactions", stops["interactions"])}
        self.take(interactions, (record for _, _, record in self._records("enriched", stops["enriched"])))
        self._ends, self._read_s = stops, time.monotonic()

    def _records(self, topic: str, stop: dict[int, int]) -> Iterator[tuple[int, int, Record]]:
        from headrace import kafka
        from headrace.schemas.errors import Malformed

        codec = self._codecs.of(topic)
        for one in kafka.read_between(self._cluster, topic, self._ends[topic], stop):
            try:
                yield one.partition, one.offset, codec.decode(one.value or b"")
            except Malformed:  # told by dead letters, and not folded
                continue


class Log:
    """Rows of a file, which were never sent; `stream` has the events behind it, and is made when they are asked for."""

    sent = False

    def __init__(self, rows: Rows, source: str, stream: Callable[[], History]) -> None:
        self.source, self._rows, self._stream = source, rows, stream
        self._made: History | None = None

    def before(self, since: int) -> Iterator[Record]:
        from headrace.replay import interactions

        for start in range(0, len(self._rows), ROWS_A_CALL):
            for _, *pair in interactions(self._rows, slice(start, min(start + ROWS_A_CALL, len(self._rows)))):
                yield from (record for record in pair if record is not None)

    def count(self, since: int) -> int:
        return len(self._rows) + self._rows.positives

    def later(self, at: int) -> Sequence[Record]:
        if self._made is None:
            self._made = self._stream()
        return self._made.later(at)
