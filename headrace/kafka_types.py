"""What headrace/kafka.py takes, gives and raises; and its clients' own log, kept to a line in ten seconds."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple, Protocol


class KafkaUnavailable(Exception):
    """No broker answers: `headrace status` shows whether the local one runs; of an external one `headrace connect check` says more."""


class Undelivered(Exception):
    """The broker did not take records in time, or refused them: nothing may count them as sent; look at the broker's log."""


class TopicMismatch(Exception):
    """A topic exists with another number of partitions. Causes name partitions, so it is left: make it anew or change the setting."""


class Record(NamedTuple):
    """One record as Kafka keeps it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class WantedTopic(Protocol):
    """What ensure_topics needs of schemas.topics.Topic."""

    @property
    def name(self) -> str: ...
    @property
    def partitions(self) -> int | None: ...
    def config(self) -> dict[str, str]: ...


class _Sparse(logging.Filter):
    """Lets one message through in ten seconds: a client without a broker says so twenty times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, _: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 10
        return True


client_log = logging.getLogger("headrace.kafka.client")
client_log.addFilter(_Sparse())
quiet_log = logging.getLogger("headrace.kafka.quiet")
quiet_log.addHandler(logging.NullHandler())
quiet_log.propagate = False
