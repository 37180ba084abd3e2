"""Tables and the INSERT of a model's vectors job: `touched.MODEL` -> vectorize -> `vectors`."""

from __future__ import annotations

from headrace.schemas.topics import touched_topic
from headrace.streaming.tables import PLACE, Connection, avro_sink, avro_source

_READ = ["source", "partition", "offset", "space", "id", "ts_ms", "caused_ms"]


def tables(connection: Connection, model: str) -> list[str]:
    return [avro_source(connection, "touched", touched_topic(model).name, "touched", f"vectors-{model}", only=_READ, place=True),
            avro_sink(connection, "vectors", "vectors", "vectors")]


def insert(model: str) -> str:
    """The key holds the space too: the topic is compacted, and a user and an item may share an id."""
    cause = "`source`, `partition`, `offset`, `caused_ms`"
    return (f"INSERT INTO vectors SELECT CONCAT(`space`, ':', `id`), `space`, `id`, v.`vector`, FALSE, '{model}', v.`sequence`, v.`ts_ms`,"
            f" {cause} FROM (SELECT {cause}, `space`, `id`, vectorize({PLACE}, `space`, `id`, `ts_ms`) AS v FROM touched)"
            " WHERE v.`vector` IS NOT NULL")
