"""The ingest job on a stack of its own: how fast it reads a full topic of JSON, and how long a record takes into `interactions`."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import numpy as np

from headrace import ingest, ingests, submission
from headrace.bench.ingest_rows import MAPPING, as_json, rate
from headrace.bench.replay_encode import invented
from headrace.bench.result import Row
from headrace.config import Config
from headrace.ingests import Definition
from headrace.kafka import Producer, ensure_topics, read_between, watermarks
from headrace.own_stack import own_stack
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from headrace.schemas.topics import Topic

TOPIC = "bench.ratings"
ROWS, ROWS_QUICK = 400_000, 20_000
PROBES, EVERY_S = 1000, 0.02
WARM = 0.25  # share of the topic that is not timed
DEADLINE_S = 300.0

log = logging.getLogger(__name__)


def measure(quick: bool) -> list[Row]:
    """Rows `ingest.topic` (records/s, of the Python stage alone) and `ingest.fresh.p50`, `.p99` (ms from the record's own time to its
    interaction's append time)."""
    rows = invented(ROWS_QUICK if quick else ROWS)
    records = as_json(rows)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, own_stack(Path(folder) / "data", log.info) as config:
        ensure_topics(config.kafka.cluster, [Topic(TOPIC, "interactions", 1, timestamp="CreateTime")])
        producer = Producer(config.kafka.cluster, linger_ms=20)
        for record in records:
            producer.send(TOPIC, b"key", record)
        producer.flush()
        definition = Definition("bench", TOPIC, MAPPING)
        ingests.save(config, definition)
        ingest.begin(config, definition)
        submission.submit(config, [definition.job])
        whole = _rate(config, definition, len(records))
        alone = rate(records[:40_960])
        fresh = _fresh(config, definition, records)
    return [Row("ingest.topic", whole, "records/s", "the Python stage alone, in this process", alone,
                f"{len(records)} JSON records of {len(records[0])} bytes, {definition.job} alone on its stack"),
            *(Row(f"ingest.fresh.p{p}", float(np.percentile(fresh, p)), "ms", note=f"{len(fresh)} records, {1 / EVERY_S:.0f}/s")
              for p in (50, 99))]


def _rate(config: Config, definition: Definition, count: int) -> float:
    """Records/s of a job that is warm."""
    _until(config, definition, int(count * WARM))
    began, first = time.monotonic(), _read(config, definition)
    _until(config, definition, count)
    return (count - first) / (time.monotonic() - began)


def _fresh(config: Config, definition: Definition, records: list[bytes]) -> list[float]:
    """ms of each of some records that come one by one."""
    producer = Producer(config.kafka.cluster, linger_ms=0)
    start, first = {p: high for p, (_, high) in watermarks(config.kafka.cluster, "interactions").items()}, _read(config, definition)
    for probe in records[:PROBES]:
        producer.send(TOPIC, b"key", probe)
        time.sleep(EVERY_S)
    producer.flush()
    _until(config, definition, first + PROBES)
    ends = {p: high for p, (_, high) in watermarks(config.kafka.cluster, TOPIC).items()}
    sent = {record.offset: record.timestamp_ms for record in read_between(config.kafka.cluster, TOPIC, {0: first}, ends)}
    codec = Codec("interactions", RegistryClient(config.registry.access))
    stop = {p: high for p, (_, high) in watermarks(config.kafka.cluster, "interactions").items()}
    found = []
    for record in read_between(config.kafka.cluster, "interactions", start, stop):
        event = codec.decode(record.value)
        if event["event_id"].endswith("-i"):
            found.append(float(record.timestamp_ms - sent[int(event["event_id"].split("-")[2])]))
    return found


def _read(config: Config, definition: Definition) -> int:
    return sum(ingest.stands(config, definition).values())


def _until(config: Config, definition: Definition, wanted: int) -> None:
    ends = time.monotonic() + DEADLINE_S
    while _read(config, definition) < wanted:
        assert time.monotonic() < ends, f"{definition.job} has read {_read(config, definition)} of {wanted} records"
        time.sleep(0.1)
