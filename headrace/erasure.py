"""One user or item erased everywhere: features, parameters, vectors, the lake, dead letters; with a scan that finds nothing, and a record.

Each step may be repeated, and an erasure that was cut off is begun again by the same command. Causes stay applied: nothing that was
learnt or folded is undone for others, and nothing that was erased is folded again by a job that comes back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace import kafka, kafka_admin
from headrace.ann.client import AnnClient
from headrace.config import Config
from headrace.erased_letters import Letters
from headrace.features.client import FeatureClient
from headrace.lake import erasing
from headrace.lake.errors import LakeAbsent
from headrace.lake.store import at
from headrace.ps.client import ParameterClient
from headrace.schemas.hashing import feature_key

FOLDER = "erasures"
SNAPSHOT_S = 600.0
Counts = dict[str, int]


class Somebody(NamedTuple):
    """`of`: user or item; their id."""

    of: str
    name: str

    @property
    def key(self) -> int:
        """Of their rows, of features and of parameters."""
        return feature_key(f"{self.of}_id", self.name)

    @property
    def hash(self) -> str:
        return erasing.hash_of(self.of, self.name)


def scan(config: Config, who: Somebody) -> dict[str, Counts]:
    """What is there of somebody: place -> part -> rows. Raises RpcError, KafkaUnavailable, LakeDamaged, LakeAway, and
    says who does not answer."""
    keys = np.array([who.key], np.uint64)
    features, parameters, ann = _clients(config)
    try:
        found = {"features": features.held(who.of, who.key),
                 "parameters": {f"{model.name}/{table}": rows for model in config.trained
                                for table, rows in parameters.held(model.name, keys).items()},
                 "vectors": {who.of: int(ann.nearest(who.of, who.of, who.name, 1).found)}}
    finally:
        for client in (features, parameters, ann):
            client.close()
    found["dead letters"] = {"dead-letters": Letters(config).count(who.of, who.name)}
    try:
        found["lake"] = {"samples": erasing.count(at(config.lake_place), who.of, who.name)}
    except LakeAbsent:
        found["lake"] = {}
    return found


def left(found: dict[str, Counts]) -> int:
    return sum(rows for parts in found.values() for rows in parts.values())


def erase(config: Config, who: Somebody, tell: Callable[[str], Any]) -> dict[str, Any]:
    """Erase, scan, and write the record, which is returned; `tell` is told each step. Raises as `scan`."""
    at_ms, keys = int(time.time() * 1000), np.array([who.key], np.uint64)
    stops = {p: high for p, (_, high) in kafka.watermarks(config.kafka.cluster, "interactions").items()}
    source = kafka.topic_source(config.kafka.cluster, "interactions")
    features, parameters, ann = _clients(config)
    removed: dict[str, Counts] = {}
    try:
        tell("features")
        removed["features"] = features.erase(who.of, who.key)
        tell("parameters")
        removed["parameters"] = {f"{model.name}/{table}": rows for model in config.trained
                                 for table, rows in parameters.erase(model.name, keys).items()}
        tell("vectors")
        removed["vectors"] = {who.of: _vector(config, who, parameters, ann)}
    finally:
        for client in (features, parameters, ann):
            client.close()
    tell("the lake")
    try:
        made = erasing.erase(at(config.lake_place), who.of, who.name, at_ms, source, stops)
        removed["lake"] = {"samples": made.rows[0] - made.rows[1]}
    except LakeAbsent:
        removed["lake"] = {}
    tell("dead letters")
    removed["dead letters"] = {"dead-letters": Letters(config).erase(who.of, who.name)}
    tell("snapshots of the parameter server")
    _snapshots(config)
    tell("a scan of all of it")
    found = scan(config, who)
    record = {"of": who.of, "sha256": who.hash, "at_ms": at_ms, "before": {"source": source, "offsets": stops}, "removed": removed,
              "found_after": found, "remains": remains(config, at_ms)}
    record["record"] = str(_write(config, who, at_ms, record))
    return record


def _vector(config: Config, who: Somebody, parameters: ParameterClient, ann: AnnClient) -> int:
    """Publish the deletion at the parameters' sequence, so that no older vector follows, then nothing under the key, so that compaction
    forgets the id; wait until the index has it."""
    from headrace.serve import Codecs

    there = int(ann.nearest(who.of, who.of, who.name, 1).found)
    model, now_ms = config.model.name, int(time.time() * 1000)
    _, sequence = parameters.pull(model, "weights", np.array([who.key], np.uint64))
    producer, key = kafka.Producer(config.kafka.cluster), f"{who.of}:{who.name}".encode()
    producer.send("vectors", key, Codecs(config).of("vectors").encode({
        "space": who.of, "id": who.name, "vector": b"", "deleted": True, "model": model, "sequence": sequence, "ts_ms": now_ms,
        "source": None, "partition": None, "offset": None, "caused_ms": None}))
    producer.send("vectors", key, None)
    producer.flush()
    until = time.monotonic() + 10.0
    while ann.nearest(who.of, who.of, who.name, 1).found and time.monotonic() < until:
        time.sleep(0.05)
    return there


def _snapshots(config: Config) -> None:
    """Of every shard, so that its log, which holds gradients of the rows, is cut."""
    from headrace.rpc.client import Client

    for address in config.ps.reachable:
        client = Client(address, SNAPSHOT_S)
        try:
            client.call("snapshot")
        finally:
            client.close()


def remains(config: Config, at_ms: int) -> list[dict[str, Any]]:
    """What cannot be erased at once, by name: until when it is there, milliseconds since 1970, None where nothing removes it by time."""
    where = config.kafka.cluster
    settings = kafka_admin.topic_settings(where, sorted(name for name in kafka.partitions(where) if not name.startswith("__")))
    told: list[dict[str, Any]] = []
    for topic, values in settings.items():
        compacted, kept_ms = values["cleanup.policy"] == "compact", int(values["retention.ms"])
        rolled_ms = int(values["segment.ms"])
        if compacted:
            until, why = at_ms + rolled_ms + int(values["delete.retention.ms"]), "older records of a key go when the broker compacts"
        elif kept_ms < 0:
            until, why = None, "kept for ever"
        else:
            until = at_ms + kept_ms + rolled_ms
            why = f"retention.ms {kept_ms} behind the newest record of its segment, which is rolled after segment.ms {rolled_ms} at most"
        told.append({"what": f"topic {topic}", "until_ms": until, "why": why})
    return told + [{"what": what, "until_ms": None, "why": why} for what, why in OTHERS]


OTHERS = (
    ("features, frozen rows", "answers to repetitions of a cause, ids hashed, for the last 262,144 offsets of a partition"),
    ("features, rows of pairs (user x ...)", "under a hash of both: nobody can find them by the id; they hold no id"),
    ("features, recent items of users", "hold an item as a 64-bit hash, until 64 newer items have come"),
    ("parameters, rows of crossed features", "under a hash of both: nobody can find them by the id"),
    ("parameters, older snapshots and the standbys' logs", "go as newer snapshots are made (ps.snapshot_s)"),
    ("replicas", "follow weights.MODEL within ps.publish_ms"),
    ("published versions of models", "hold rows under hashes until they go (versions.keep); `headrace models list`"),
    ("copies by `headrace ps backup`, ps.before-N-shards, copies of the lake, older versions of objects in a bucket that keeps them",
     "are yours to remove"),
)


def _clients(config: Config) -> tuple[FeatureClient, ParameterClient, AnnClient]:
    from headrace.feature_set import feature_set_of

    return (FeatureClient(config.features.address, deadline_s=5.0, feature_set=feature_set_of(config)),
            ParameterClient(config.ps.reachable, 5.0), AnnClient(config.ann.address))


def _write(config: Config, who: Somebody, at_ms: int, record: dict[str, Any]) -> Path:
    folder = config.stack.data_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    day = datetime.fromtimestamp(at_ms / 1000, timezone.utc)
    file = folder / f"{day:%Y%m%dT%H%M%S}-{who.hash[:16]}.json"
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(record, indent=2) + "\n")
    fresh.rename(file)
    return file
