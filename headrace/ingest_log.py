"""The stack's clock while a topic is ingested: now for a live one; the log's own for old events, which are read to the topic's present end
and closed as a replay closes a file."""

from __future__ import annotations

import time
from typing import Literal

from headrace import submission
from headrace.access import given
from headrace.clock import StackClock, agree
from headrace.config import Config
from headrace.ingest import look, progress
from headrace.ingests import Definition, IngestError
from headrace.kafka import Producer, read_between, watermarks
from headrace.replay import Sent, close, now_ms
from headrace.replay_run import CLAIM_MS
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed
from headrace.schemas.interaction import TS_MS_MIN
from headrace.schemas.registry import RegistryClient

STUCK_S = 120.0
TAIL = 2000  # records of a partition among which its newest event is: as disordered as that a topic may be
TOPIC = "interactions"


class Log:
    """The clock of one ingest."""

    def __init__(self, config: Config, definition: Definition, mode: Literal["log", "now"]) -> None:
        self._config, self._definition, self._mode = config, definition, mode

    def claim(self) -> None:
        """Have the stack run on this clock. Raises ClockRefused, EngineUnavailable."""
        clock, name = StackClock(**given(self._config.engine)), f"topic {self._definition.topic}"
        try:
            if self._mode == "now":
                agree(clock.state(), "now", now_ms(), now_ms(), name)
                clock.set("now", now_ms())
                return
            found = look(self._config, self._definition).audit
            if found.first_ms is None or found.last_ms is None:
                raise IngestError(f"{name} has no record that could be used, so the log's clock has no beginning")
            agree(clock.state(), "log", found.first_ms, found.last_ms, name)
            clock.set("log", max(found.first_ms - CLAIM_MS, TS_MS_MIN))
        finally:
            clock.close()

    def drain(self) -> int:
        """Wait until the job has read what the topic holds now, close the windows behind it, stop it; records read. Raises IngestError when
        nothing moves for two minutes."""
        ends = {partition: high for partition, (_, high) in progress(self._config, self._definition).items()}
        last, since = -1, time.monotonic()
        while True:
            stands = progress(self._config, self._definition)
            if all(stands[partition][0] >= end for partition, end in ends.items()):
                break
            read = sum(at for at, _ in stands.values())
            if read != last:
                last, since = read, time.monotonic()
            if time.monotonic() > since + STUCK_S:
                raise IngestError(f"{self._definition.job} stands still at {stands}; `headrace jobs logs {self._definition.job}`")
            time.sleep(0.2)
        self._close()
        submission.stop(self._config, [self._definition.job])
        return sum(ends.values())

    def _close(self) -> None:
        config = self._config
        producer, codec = Producer(config.kafka.cluster), Codec(TOPIC, RegistryClient(config.registry.access))
        partitions = len(watermarks(config.kafka.cluster, TOPIC))
        reached = close(Sent(last_ts_ms=self._newest_ms(codec)), lambda key, record: producer.send(TOPIC, key, codec.encode(record)),
                        partitions, config.samples.widest_ms, config.samples.out_of_orderness_ms)
        producer.flush()
        clock = StackClock(**given(config.engine))
        try:
            clock.set("log", reached)
        finally:
            clock.close()

    def _newest_ms(self, codec: Codec) -> int:
        """The newest event time among the last records of each partition of interactions."""
        marks, newest = watermarks(self._config.kafka.cluster, TOPIC), TS_MS_MIN
        first = {partition: max(low, high - TAIL) for partition, (low, high) in marks.items()}
        for record in read_between(self._config.kafka.cluster, TOPIC, first, {partition: high for partition, (_, high) in marks.items()}):
            try:
                newest = max(newest, codec.decode(record.value)["ts_ms"])
            except Malformed:
                continue
        return newest
