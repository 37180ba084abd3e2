"""The reviewed table of topics: partitions, retention, cleanup, time stamps, largest message.

Time stamps are LogAppendTime everywhere. Event time lives in the records (ts_ms) and may be of 1997 in a replay: with CreateTime such a
record would be older than any retention when it arrives and its segment would go at once; and the append time is what clamps event times
that lie ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DAY_MS = 86_400_000


PROVISIONAL = "provisional"
"""Topic of exposures whose label is not final, and the last part of the name of the effect that learning one has."""


@dataclass(frozen=True)
class Topic:
    """A topic's settings. `schema` is a name in schemas.codec.SCHEMAS; `partitions` None: as configured; `bytes_max` of one message."""

    name: str
    schema: str
    partitions: int | None = None
    retention_ms: int = 7 * DAY_MS
    cleanup: Literal["delete", "compact"] = "delete"
    timestamp: Literal["LogAppendTime", "CreateTime"] = "LogAppendTime"
    bytes_max: int = 1 << 20

    def config(self) -> dict[str, str]:
        """Kafka's topic configuration."""
        values = {"cleanup.policy": self.cleanup, "message.timestamp.type": self.timestamp, "max.message.bytes": str(self.bytes_max)}
        if self.cleanup == "compact":
            return values | {"delete.retention.ms": str(DAY_MS), "min.cleanable.dirty.ratio": "0.1", "segment.ms": str(DAY_MS)}
        return values | {"retention.ms": str(self.retention_ms)}


TOPICS = (
    Topic("interactions", "interactions"),
    Topic("materials", "materials", cleanup="compact"),  # the material store is a fold of it from the beginning
    Topic("relations", "relations", retention_ms=365 * DAY_MS),  # the key is the follower: compaction would keep one follow of each
    Topic("labels", "labels", retention_ms=365 * DAY_MS),
    Topic("enriched", "enriched"),
    Topic("samples", "samples"),
    Topic(PROVISIONAL, "samples", retention_ms=DAY_MS),  # read by training alone, under the strategy `fast`
    Topic("vectors", "vectors", cleanup="compact"),
    Topic("ps-owners", "ps-owners", partitions=1, retention_ms=-1),  # its fold from the beginning says who owns a shard
    Topic("dead-letters", "dead-letters", partitions=1, retention_ms=30 * DAY_MS),
)


def provisional_effect(target: str) -> str:
    """The effect of learning an exposure before its label is final; that of its final label is the target."""
    return f"{target}.{PROVISIONAL}"


def touched_topic(model: str) -> Topic:
    """Ids that training of `model` has just changed: a trigger, stale within minutes."""
    return Topic(f"touched.{model}", "touched", retention_ms=DAY_MS)


def weights_topic(model: str) -> Topic:
    """Blocks of rows as served, keyed by slot, so that a slot's blocks keep their order; not compacted: snapshot and tail."""
    return Topic(f"weights.{model}", "weights")


def settings(models: list[str], partitions: int) -> list[Topic]:
    """Every topic of a stack that trains `models`, with `partitions` filled in where a topic takes the configured number."""
    topics = [*TOPICS, *(make(model) for model in models for make in (touched_topic, weights_topic))]
    return [Topic(**{**topic.__dict__, "partitions": topic.partitions or partitions}) for topic in topics]
