"""The samples job: exposures and actions of `enriched`, joined on event time -> `samples`.  flink run -py jobs/samples.py"""

from __future__ import annotations

from headrace.config import Config
from headrace.jobs.launch import Job, run
from headrace.streaming import samples


def job(config: Config) -> Job:
    wanted = config.samples
    return Job("samples", lambda where: samples.tables(where, wanted.out_of_orderness_ms), samples.inserts(wanted.target),
               samples.views(wanted.window_ms, wanted.target))


if __name__ == "__main__":
    run(job)
