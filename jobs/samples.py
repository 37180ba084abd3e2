"""The samples job: exposures and actions of `enriched`, joined on event time -> `samples`.  flink run -py jobs/samples.py"""

from __future__ import annotations

from pyflink.table import StatementSet, TableEnvironment

from headrace.config import Config
from headrace.jobs.launch import connection, run
from headrace.streaming import samples


def build(env: TableEnvironment, config: Config) -> StatementSet:
    """The job on `env`, not yet submitted."""
    wanted = config.samples
    for statement in samples.tables(connection(config), wanted.out_of_orderness_ms) + samples.views(wanted.window_ms, wanted.target):
        env.execute_sql(statement)
    statements = env.create_statement_set()
    for insert in samples.inserts(wanted.target):
        statements.add_insert_sql(insert)
    return statements


if __name__ == "__main__":
    run("samples", build)
