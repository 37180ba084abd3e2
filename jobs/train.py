"""The training job of the configured model: samples -> pull, predict, gradient, push -> `touched.MODEL`.  flink run -py jobs/train.py"""

from __future__ import annotations

from pyflink.table import StatementSet, TableEnvironment

from headrace.config import Config
from headrace.jobs.launch import addresses, connection, run
from headrace.streaming import training
from headrace.streaming.learn import Lesson, learn


def build(env: TableEnvironment, config: Config) -> StatementSet:
    """The job on `env`, not yet submitted."""
    model, target = config.model.name, config.samples.target
    lesson = Lesson(model, target, config.model.l2, config.model.window_offsets)
    env.create_temporary_function("learn", learn(addresses(config), lesson))
    for statement in training.tables(connection(config), model):
        env.execute_sql(statement)
    statements = env.create_statement_set()
    statements.add_insert_sql(training.insert(model, target))
    return statements


if __name__ == "__main__":
    run("train", build)
