"""Tables and the INSERT of the features job: `interactions` (undecoded) -> featurize -> `enriched`."""

from __future__ import annotations

from headrace.streaming.tables import Connection, raw_sink, raw_source


def tables(connection: Connection) -> list[str]:
    return [raw_source(connection, "interactions", "interactions", "features"), raw_sink(connection, "enriched", "enriched")]


def insert() -> str:
    """The source is chained to the stage and the stage to the sink: nothing between them may change a partition's order."""
    append_ms = ("CAST(EXTRACT(EPOCH FROM `timestamp`) AS BIGINT) * CAST(1000 AS BIGINT)"
                 " + CAST(EXTRACT(MILLISECOND FROM `timestamp`) AS BIGINT)")
    return ("INSERT INTO enriched SELECT `key`, e FROM ("
            f"SELECT `key`, featurize(`key`, `value`, `partition`, `offset`, {append_ms}) AS e FROM interactions) WHERE e IS NOT NULL")
