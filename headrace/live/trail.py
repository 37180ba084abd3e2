"""Whether training has applied one event: found in the log by its id once, then asked of every shard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from headrace.config import Config
from headrace.engine.console.figures import Learnt
from headrace.engine.console.sampler import Away
from headrace.kafka import KafkaUnavailable
from headrace.rpc.errors import RpcError
from headrace.schemas.codec import RegistryUnavailable
from headrace.trace_hops import Place
from headrace.trace_topics import TOPIC, LiveTopics

BEFORE_MS, BEYOND_MS = 2000, 1000


class Trail:
    """Over the topics and shards of `config`; connects when first asked. One question at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._topics: LiveTopics | None = None

    def __call__(self, user: str, event_id: str, since_ms: int) -> Learnt:
        place: list[Place] = []

        def learnt() -> bool:
            return self._ask(lambda topics: self._learnt(topics, user, event_id, since_ms, place))

        return learnt

    def connect(self) -> None:
        """Before the first question, whose answer is timed. Raises Away."""
        self._ask(lambda topics: True)

    def close(self) -> None:
        with self._lock:
            if self._topics is not None:
                self._topics.close()

    def _ask(self, ask: Callable[[LiveTopics], bool]) -> bool:
        with self._lock:
            try:
                self._topics = self._topics or LiveTopics(self._config)
                return ask(self._topics)
            except (KafkaUnavailable, RpcError, RegistryUnavailable) as error:
                raise Away(str(error)) from None

    def _learnt(self, topics: LiveTopics, user: str, event_id: str, since_ms: int, place: list[Place]) -> bool:
        if not place:
            stop_ms = time.time_ns() // 1_000_000 + BEYOND_MS
            came = topics.scan(TOPIC, since_ms - BEFORE_MS, stop_ms, user)
            seen = next((one for one in came if one.record["event_id"] == event_id), None)
            if seen is None:
                return False
            place.append((seen.partition, seen.offset))
        return all(status for status in topics.known(self._config.model.name, self._config.target_of(), place[0]))
