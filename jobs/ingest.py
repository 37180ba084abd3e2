"""The ingest job: a topic that others write -> `interactions`.  flink run -py jobs/ingest.py --topic T --mapping M.toml [--name NAME]

`headrace ingest` submits it after it has looked at the topic's records; run so, nothing is looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from headrace.config import Config
from headrace.ingests import Definition, define
from headrace.jobs.launch import Job, addresses, marks, run, source
from headrace.streaming import ingest as stages
from headrace.streaming.transactions import group_of


def job(config: Config, definition: Definition) -> Job:
    """The job of `definition`, whose group has been put to where it begins."""
    number = source(config, definition.topic)
    stage = stages.Ingest(addresses(config), definition.name, definition.topic, number, definition.mapping, config.engine.event_bytes_max,
                          marks(config), alone=config.flink.parallelism == 1)
    group = group_of(definition.name, number)
    return Job(definition.job, lambda where: stages.tables(where, definition.topic, group), [stages.insert()],
               functions={"ingest": stages.ingest(stage, config.flink.external)})


def _begun(config: Config, definition: Definition) -> Job:
    from headrace.ingest import begin

    begin(config, definition)
    return job(config, definition)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="jobs/ingest.py")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--mapping", required=True, type=Path)
    parser.add_argument("--name", default=None)
    given = parser.parse_args()
    run(lambda config: _begun(config, define(given.topic, given.mapping, given.name)))
