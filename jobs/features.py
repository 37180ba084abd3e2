"""The features job: interactions -> features and `enriched`.  flink run -py jobs/features.py"""

from __future__ import annotations

from pyflink.table import StatementSet, TableEnvironment

from headrace.config import Config
from headrace.jobs.launch import addresses, connection, run, source
from headrace.streaming import features
from headrace.streaming.featurize import featurize


def build(env: TableEnvironment, config: Config) -> StatementSet:
    """The job on `env`, not yet submitted."""
    env.create_temporary_function("featurize", featurize(addresses(config), source(config, "interactions"), config.engine.event_bytes_max))
    for statement in features.tables(connection(config)):
        env.execute_sql(statement)
    statements = env.create_statement_set()
    statements.add_insert_sql(features.insert())
    return statements


if __name__ == "__main__":
    run("features", build)
