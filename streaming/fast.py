"""Exposures as negatives at once, actions as they arrive, in Flink SQL alone: `enriched` -> `provisional` and `samples`, strategy `fast`.

Everything of `eager` (streaming/eager.py), and beside it each exposure the moment it comes, as a negative that may be false, to the topic
`provisional`. Training learns these with the weights that make up for the false ones (models/kernels.py: importance), and of `samples`,
whose labels are final, the positives once more; negatives of `samples` only give the score of their exposure its final label. So topics,
lake and metrics hold final labels alone, and what is provisional is read by training and nobody else.
"""

from __future__ import annotations

from headrace.schemas.topics import PROVISIONAL
from headrace.streaming import eager, samples
from headrace.streaming.samples import CARRIED, CAUSE, listed
from headrace.streaming.tables import Connection, avro_sink


def tables(connection: Connection, out_of_orderness_ms: int) -> list[str]:
    """DDL of the job's source and sinks."""
    return [*samples.tables(connection, out_of_orderness_ms), avro_sink(connection, PROVISIONAL, PROVISIONAL, "samples")]


def views(window_ms: int, target: str, out_of_orderness_ms: int) -> list[str]:
    """The steps of `eager`, and the first record of each exposure. ValueError for an odd target."""
    return [
        *eager.views(window_ms, target, out_of_orderness_ms),
        f"""CREATE TEMPORARY VIEW opened AS SELECT {listed([*CARRIED, 'ts_ms'])}, 0.0E0 AS `label`, '' AS `actions`,
  CAST(NULL AS BIGINT) AS `action_ts_ms`
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {listed(CAUSE)} ORDER BY PROCTIME()) AS `copy` FROM exposures) WHERE `copy` = 1""",
    ]


def inserts(target: str) -> list[str]:
    """The four INSERTs of the job's statement set."""
    return [f"INSERT INTO {PROVISIONAL} SELECT `user_id`, {samples.sample('fast', target)} FROM opened", *samples.leaving("fast", target)]
