"""What a lake is written from: a topic of samples, as plain objects, so that a file can stand in for Kafka."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Topic(NamedTuple):
    """A topic by name and uuid: one that is made anew has another uuid, and its offsets begin again."""

    name: str
    id: str


class Read(NamedTuple):
    """A record of the topic, decoded; `sample` None where it could not be, `fault` says why. `at_ms`: when the broker took it."""

    partition: int
    offset: int
    at_ms: int
    sample: dict[str, Any] | None
    fault: str = ""


class Source(Protocol):
    """The topic. Methods raise KafkaUnavailable and the like, and may be called again."""

    def topic(self) -> Topic: ...

    def marks(self) -> dict[int, tuple[int, int]]:
        """partition -> (first offset kept, offset that the next record gets). Called from any thread."""
        ...

    def batches(self, start: Mapping[int, int], stop: threading.Event) -> Iterator[Sequence[Read]]:
        """Records from `start` on (a partition not named there from the first kept), each partition in its order, committed ones only;
        an empty batch when nothing came within some tenths of a second. Ends when `stop` is set."""
        ...
