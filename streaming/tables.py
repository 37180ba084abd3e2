"""DDL of the Kafka tables that the jobs read and write."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.schemas.codec import schema_text
from headrace.streaming.columns import columns

PLACE = "`at_partition`, `at_offset`"


@dataclass(frozen=True)
class Connection:
    """Where Kafka and the registry are; `properties` go to every Kafka client of Flink unchanged, `registry_options` to the format's client
    of the registry. Both stand in a statement, so no secret may: Kafka's name a file (streaming/secured.py)."""

    bootstrap: str
    registry: str
    properties: dict[str, str] = field(default_factory=dict)
    registry_options: dict[str, str] = field(default_factory=dict)


def _with(options: dict[str, str]) -> str:
    return ",\n  ".join(f"'{key}' = '{value.replace(chr(39), chr(39) * 2)}'" for key, value in options.items())


def _kafka(connection: Connection, topic: str) -> dict[str, str]:
    return {"connector": "kafka", "topic": topic, "properties.bootstrap.servers": connection.bootstrap,
            **{f"properties.{key}": value for key, value in connection.properties.items()}}


def _avro(connection: Connection) -> dict[str, str]:
    options = {"url": connection.registry, **connection.registry_options}
    return {"value.format": "avro-confluent", **{f"value.avro-confluent.{key}": value for key, value in options.items()}}


def _scan(group: str) -> dict[str, str]:
    """Start at the group's committed offsets, else at the earliest; checkpoints override both. No idle time-out: it may be a stall."""
    return {"properties.group.id": f"headrace-{group}", "scan.startup.mode": "group-offsets", "properties.auto.offset.reset": "earliest",
            "scan.watermark.emit.strategy": "on-event", "scan.topic-partition-discovery.interval": "0"}


def raw_source(connection: Connection, name: str, topic: str, group: str, more: dict[str, str] | None = None) -> str:
    """A table of undecoded records: key, value, partition, offset, timestamp; with options `more` instead of its own. No record can fail
    here, whatever its bytes. Producers may write in transactions, as the ingest job does: what is not committed is not there."""
    return f"""CREATE TEMPORARY TABLE {name} (
  `key` BYTES, `value` BYTES,
  `partition` INT METADATA VIRTUAL, `offset` BIGINT METADATA VIRTUAL, `timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL
) WITH (
  {_with({**_kafka(connection, topic), **_scan(group), "properties.isolation.level": "read_committed", **_RAW, **(more or {})})}
)"""


def raw_sink(connection: Connection, name: str, topic: str) -> str:
    """A sink of encoded records under a key; the key's murmur2 chooses the partition."""
    return f"""CREATE TEMPORARY TABLE {name} (`key` BYTES, `value` BYTES) WITH (
  {_with({**_kafka(connection, topic), **_RAW, **_DELIVERY})}
)"""


def interval(ms: int) -> str:
    """`ms` milliseconds as SQL; SECOND alone takes less than a hundred seconds."""
    if ms < 100_000:
        return f"INTERVAL '{ms / 1000:.3f}' SECOND"
    minutes, seconds = divmod(ms / 1000, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"INTERVAL '{hours // 24} {hours % 24:02d}:{minutes:02d}:{seconds:06.3f}' DAY TO SECOND(3)"


def avro_source(connection: Connection, name: str, topic: str, schema: str, group: str, *, only: list[str] | None = None,
                event_time: str = "", out_of_orderness_ms: int = 0, position: str = "", place: bool = False) -> str:
    """A table decoded in the JVM; `event_time` names the ms column behind the watermark of column `ts`, `position` a column to hold the
    record's own offset; `place`: columns at_partition and at_offset for where the record itself lies."""
    lines = [f"`{name_}` {type_}" for name_, type_ in columns(schema, only)]
    if position:
        lines.append(f"`{position}` BIGINT NOT NULL METADATA FROM 'offset' VIRTUAL")
    if place:
        lines += ["`at_partition` INT NOT NULL METADATA FROM 'partition' VIRTUAL",
                  "`at_offset` BIGINT NOT NULL METADATA FROM 'offset' VIRTUAL"]
    if event_time:
        lines += [f"`ts` AS TO_TIMESTAMP_LTZ(`{event_time}`, 3)",
                  f"WATERMARK FOR `ts` AS `ts` - {interval(out_of_orderness_ms)}"]
    body = ",\n  ".join(lines)
    # A watermark an event, through every join, window and timer behind it, halves what the samples job can do. Every 20 ms does as well:
    # `wait` sorts its samples by event time in the end, and `eager` scores exposures when they are made.
    scan = _scan(group) | ({"scan.watermark.emit.strategy": "on-periodic"} if event_time else {})
    return f"CREATE TEMPORARY TABLE {name} (\n  {body}\n) WITH (\n  {_with({**_kafka(connection, topic), **scan, **_avro(connection)})}\n)"


def avro_sink(connection: Connection, name: str, topic: str, schema: str, *, keyed: bool = True) -> str:
    """A sink encoded in the JVM under our own schema text; with `keyed` its first column, `key`, is the record's raw key."""
    body = ",\n  ".join((["`key` STRING"] if keyed else []) + [f"`{name_}` {type_}" for name_, type_ in columns(schema)])
    options = {**_kafka(connection, topic), **_avro(connection),
               "value.avro-confluent.subject": f"{topic}-value", "value.avro-confluent.schema": schema_text(schema), **_DELIVERY}
    if keyed:
        options |= {"key.format": "raw", "key.fields": "key", "value.fields-include": "EXCEPT_KEY"}
    return f"CREATE TEMPORARY TABLE {name} (\n  {body}\n) WITH (\n  {_with(options)}\n)"


_RAW = {"key.format": "raw", "key.fields": "key", "value.format": "raw", "value.fields-include": "EXCEPT_KEY"}
# A batch costs a request and buffers to compress, here, at the broker and at each reader, however few records it holds: with Kafka's
# 16 KB and 2 ms a broker on a busy machine took 113 us an interaction, with these 60. 10 ms is half of what a Python stage waits for its
# rows. A producer keeps its buffers: with batches of 128 KB the collector of the TaskManager had more to do.
_DELIVERY = {"sink.delivery-guarantee": "at-least-once", "properties.acks": "all", "properties.compression.type": "lz4",
             "properties.linger.ms": "10", "properties.batch.size": "32768"}
