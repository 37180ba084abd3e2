"""The taps of a running stack: Kafka, the parameter server's shards and the feature service of a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from headrace.config import Config
from headrace.kafka import Where, span, watermarks
from headrace.ps.client import ParameterClient
from headrace.rpc.client import Client
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from headrace.taps import Offsets, Taps


@contextmanager
def live_taps(config: Config) -> Iterator[Taps]:
    """Taps of the stack that `config` names; connections are closed at the end."""
    shards = [Client(address) for address in config.ps.reachable]
    features = Client(config.features.address)
    parameters = ParameterClient(config.ps.reachable)
    registry = RegistryClient(config.registry.access)
    codecs: dict[str, Codec] = {}
    target = config.target_of()

    def read(topic: str, start: Offsets, stop: Offsets) -> Iterator[dict[str, Any]]:
        codec = codecs.setdefault(topic, Codec(topic, registry))
        for value in between(config.kafka.cluster, topic, start, stop):
            record = codec.decode(value)
            if topic != "samples" or record["target"] == target:
                yield record

    def counts(keys: np.ndarray) -> np.ndarray:
        return np.asarray(parameters.pull(config.model.name, "metrics", keys)[0]).reshape(-1)

    def retries() -> int:
        return int(features.call_until(10.0, "stats")[0].get("retries", 0))

    try:
        yield Taps(
            model=config.model.name, window_offsets=config.model.window_offsets,
            highs=lambda topic: {p: high for p, (_, high) in watermarks(config.kafka.cluster, topic).items()},
            read=read, stats=lambda: [shard.call_until(10.0, "stats")[0] for shard in shards], retries=retries, counts=counts,
            targets=len(config.samples.targets),
        )
    finally:
        for client in (*shards, features):
            client.close()
        parameters.close()


def between(where: Where, topic: str, start: Offsets, stop: Offsets) -> Iterator[bytes]:
    """Values of records from `start` to before `stop`. Raises KafkaUnavailable after 10 s of silence."""
    return (record.value for record in span(where, topic, start, stop) if record.value is not None)
