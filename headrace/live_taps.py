"""The taps of a running stack: Kafka, the parameter server's shards and the feature service of a configuration."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from headrace.config import Config
from headrace.kafka import KafkaUnavailable, read_batches, watermarks
from headrace.ps.client import ParameterClient
from headrace.rpc.client import Client
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from headrace.taps import Offsets, Taps

SILENT_S = 10.0


@contextmanager
def live_taps(config: Config) -> Iterator[Taps]:
    """Taps of the stack that `config` names; connections are closed at the end."""
    shards = [Client(address) for address in config.ps.addresses]
    features = Client(config.features.address)
    parameters = ParameterClient(config.ps.addresses)
    registry = RegistryClient(config.registry.url)
    codecs: dict[str, Codec] = {}

    def read(topic: str, start: Offsets, stop: Offsets) -> Iterator[dict[str, Any]]:
        codec = codecs.setdefault(topic, Codec(topic, registry))
        for value in between(config.kafka.bootstrap, topic, start, stop):
            yield codec.decode(value)

    def counts(keys: np.ndarray) -> np.ndarray:
        return np.asarray(parameters.pull(config.model.name, "metrics", keys)[0]).reshape(-1)

    def retries() -> int:
        return int(features.call_until(10.0, "stats")[0].get("retries", 0))

    try:
        yield Taps(
            model=config.model.name, window_offsets=config.model.window_offsets,
            highs=lambda topic: {p: high for p, (_, high) in watermarks(config.kafka.bootstrap, topic).items()},
            read=read, stats=lambda: [shard.call_until(10.0, "stats")[0] for shard in shards], retries=retries, counts=counts,
        )
    finally:
        for client in (*shards, features):
            client.close()
        parameters.close()


def between(bootstrap: str, topic: str, start: Offsets, stop: Offsets) -> Iterator[bytes]:
    """Values of records from `start` to before `stop`, partition by partition in order. Raises KafkaUnavailable after 10 s of silence.

    The last offset may be a hole (a transaction marker): two seconds of silence after a record are taken as the end.
    """
    open_partitions = {p for p, high in stop.items() if high > start.get(p, 0)}
    if not open_partitions:
        return
    end, heard = threading.Event(), time.monotonic()
    came = False
    for batch in read_batches(bootstrap, topic, end, {p: start.get(p, 0) for p in stop}, records_max=2000, wait_s=0.05):
        for record in batch:
            if record.offset >= stop.get(record.partition, 0) - 1:
                open_partitions.discard(record.partition)
            if record.offset < stop.get(record.partition, 0) and record.value is not None:
                yield record.value
        if batch:
            heard, came = time.monotonic(), True
        silent_s = time.monotonic() - heard
        if not open_partitions or (came and silent_s > 2.0):
            return
        if silent_s > SILENT_S:
            raise KafkaUnavailable(f"{bootstrap} gave no record of {topic} for {SILENT_S:.0f} s; `headrace status` shows whether it runs")
