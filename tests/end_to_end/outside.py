"""The stack seen from outside, by none of the code that makes the product's report: topics by offset through confluent_kafka and
fastavro, shards by their wire verbs, jobs by Flink's REST API. And waiting, for a condition and never for seconds."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import confluent_kafka
import fastavro
import httpx
import numpy as np

from headrace.config import Config
from headrace.rpc.client import Client

SCHEMAS = Path(__file__).parents[2] / "schemas"
SCHEMA_OF = {"provisional": "samples"}
T = TypeVar("T")
Offsets = dict[int, int]
Cause = tuple[int, int, int]


def until(condition: Callable[[], T], what: str | Callable[[], Any], deadline_s: float = 180.0) -> T:
    """What `condition` returns once it is true. Fails naming `what` did not come."""
    ends = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < ends, f"not within {deadline_s:.0f} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.02)
    return found


class Row(NamedTuple):
    """One record of a topic, decoded; `bytes` as Kafka keeps them."""

    partition: int
    offset: int
    bytes: bytes
    record: dict[str, Any]


class Outside:
    """A running stack of `config`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model = config.model.name
        self.http = httpx.Client(timeout=30.0, trust_env=False)
        self.shards = [Client(address) for address in config.ps.reachable]
        self.replica = Client(config.replica.addresses[0])
        self._consumer = confluent_kafka.Consumer({
            "bootstrap.servers": config.kafka.bootstrap, "group.id": "outside", "enable.auto.commit": False,
            "isolation.level": "read_committed", "broker.address.family": "v4"})

    def __enter__(self) -> Outside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()
        for client in (*self.shards, self.replica):
            client.close()
        self._consumer.close()

    # Kafka

    def offsets(self, topic: str) -> Offsets:
        """The offset that the next record of each partition gets."""
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        assert partitions, f"topic {topic} has no partitions"
        return {p: until(lambda p=p: self._next(topic, p), f"a leader of {topic}, {p}") - 1 for p in partitions}

    def _next(self, topic: str, partition: int) -> int:
        """One more than the next offset; 0 while a broker that just came back does not lead the partition yet."""
        try:
            return self._consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition), timeout=10)[1] + 1
        except confluent_kafka.KafkaException:
            return 0

    def read(self, topic: str, start: Offsets, stop: Offsets | None = None) -> list[Row]:
        """Every record from `start` to before `stop` (default: now), decoded under the repository's schema, by partition and offset."""
        stop = stop or self.offsets(topic)
        schema = fastavro.parse_schema(json.loads((SCHEMAS / f"{SCHEMA_OF.get(topic, topic.split('.', maxsplit=1)[0])}.avsc").read_text()))
        missing = {p for p in stop if stop[p] > start.get(p, 0)}
        rows: list[Row] = []
        self._consumer.assign([confluent_kafka.TopicPartition(topic, p, start.get(p, 0)) for p in missing])
        ends = time.monotonic() + 60
        while missing:
            assert time.monotonic() < ends, f"{topic}: partitions {missing} were not read to {stop}"
            for message in self._consumer.consume(5000, 0.2):
                assert message.error() is None, message.error()
                if message.offset() < stop[message.partition()]:
                    rows.append(Row(message.partition(), message.offset(), message.value(), _decoded(message.value(), schema)))
            # By position: a transaction's marker is an offset without a record.
            at = {one.partition: one.offset for one in self._consumer.position([confluent_kafka.TopicPartition(topic, p) for p in missing])}
            missing = {p for p in missing if at[p] < stop[p]}
        self._consumer.unassign()
        return sorted(rows, key=lambda row: (row.partition, row.offset))

    def samples(self, start: Offsets) -> dict[Cause, dict[str, Any]]:
        """The samples since `start` by cause, the first of each."""
        found: dict[Cause, dict[str, Any]] = {}
        for row in self.read("samples", start):
            found.setdefault((row.record["source"], row.record["partition"], row.record["offset"]), row.record)
        return found

    # Shards

    def stats(self) -> list[dict[str, Any]]:
        return [shard.call("stats")[0] for shard in self.shards]

    def applied(self) -> list[int]:
        """Causes that each shard has applied for the model."""
        return [header["models"][self.model]["applied"] for header in self.stats()]

    def duplicates(self) -> list[int]:
        """Pushes, of each shard, that held a cause which was applied already: wholly or in part."""
        return [header["duplicates"] + header["recuts"] for header in self.stats()]

    def rows(self, table: str) -> dict[int, np.ndarray]:
        """A table of the parameter server, every row of every shard; a key is on one shard only."""
        found: dict[int, np.ndarray] = {}
        for shard in self.shards:
            cursor = 0
            while cursor >= 0:
                header, arrays = shard.call("export", {"model": self.model, "table": table, "cursor": cursor})
                cursor = header["cursor"]
                for key, value in zip(arrays["keys"].tolist(), arrays["values"], strict=True):
                    assert key not in found, f"key {key} is on two shards"
                    found[key] = value
        return found

    def counts(self) -> int:
        """Sum of the integer table `counts`, row by row."""
        return sum(int(value.reshape(-1)[0]) for value in self.rows("counts").values())

    def served(self) -> bool:
        """The serving replica holds exactly the weights of the parameter server."""
        rows = self.rows("weights")
        keys = np.fromiter(rows, np.uint64, len(rows))
        held = self.replica.call("pull", {"model": self.model, "table": "weights"}, {"keys": keys})[1]["values"]
        return len(rows) == 0 or bool((np.stack(list(rows.values())) == held).all())

    def learnt(self, before: list[int], count: int, deadline_s: float = 180.0) -> None:
        """Wait until every shard has applied `count` samples more than `before`, and fail when one applies another number."""
        wanted = [start + count for start in before]
        until(lambda: min(now - want for now, want in zip(self.applied(), wanted, strict=True)) >= 0,
              lambda: f"{count} samples after {before}; now {self.applied()}", deadline_s)
        assert self.applied() == wanted

    # Flink

    def flink(self, path: str) -> dict[str, Any]:
        answer = self.http.get(self.config.flink.url + path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def jobs(self) -> dict[str, list[str]]:
        """name -> ids of the jobs that run."""
        found: dict[str, list[str]] = {}
        for job in self.flink("/jobs/overview")["jobs"]:
            if job["state"] == "RUNNING":
                found.setdefault(job["name"], []).append(job["jid"])
        return found

    def lives(self) -> dict[str, tuple[str, int, int]]:
        """name -> (id, exceptions, restarts) of each job that runs: the same again means that none has failed in between."""
        return {name: (ids[-1], len(self.flink(f"/jobs/{ids[-1]}/exceptions")["exceptionHistory"]["entries"]),
                       int(self.flink(f"/jobs/{ids[-1]}/metrics?get=numRestarts")[0]["value"])) for name, ids in self.jobs().items()}

    # The engine

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.http.post(self.config.engine.url + path, json=body)

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.http.get(self.config.engine.url + path, params=params or None)  # {} would drop the query of `path`

    def passed(self, start: Offsets, rounds: int = 30) -> None:
        """Wait until the engine has sent `rounds` heartbeats to every partition of interactions beyond `start`: event time moves on."""
        until(lambda: all(high >= start[p] + rounds for p, high in self.offsets("interactions").items()), "heartbeats")


def events(user: str, items: Iterable[str], *actions: str, **more: Any) -> list[dict[str, Any]]:
    """JSON events for POST /events: of each item the `actions` in order."""
    return [{"user_id": user, "item_id": item, "action": action, **more} for item in items for action in actions]


def heartbeat(row: Row) -> bool:
    return bool(row.record["action"] == "heartbeat")


def _decoded(value: bytes, schema: Any) -> dict[str, Any]:
    try:
        record: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
    except Exception as error:  # a topic may hold what no one can read: that is a record too
        return {"action": "", "unreadable": repr(error)}
    return record
