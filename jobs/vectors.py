"""The vectors job of the configured model: `touched.MODEL` -> vectors.  flink run -py jobs/vectors.py"""

from __future__ import annotations

from pyflink.table import StatementSet, TableEnvironment

from headrace.config import Config
from headrace.jobs.launch import addresses, connection, run
from headrace.streaming import vectors
from headrace.streaming.vectorize import vectorize


def build(env: TableEnvironment, config: Config) -> StatementSet:
    """The job on `env`, not yet submitted."""
    env.create_temporary_function("vectorize", vectorize(addresses(config), config.model.name))
    for statement in vectors.tables(connection(config), config.model.name):
        env.execute_sql(statement)
    statements = env.create_statement_set()
    statements.add_insert_sql(vectors.insert(config.model.name))
    return statements


if __name__ == "__main__":
    run("vectors", build)
