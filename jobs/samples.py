"""The samples job: exposures and actions of `enriched`, joined on event time -> `samples`.  flink run -py jobs/samples.py"""

from __future__ import annotations

from headrace.config import Config
from headrace.jobs.launch import Job, run
from headrace.streaming import eager, fast, samples, targets

STRATEGIES = {"wait": samples, "eager": eager, "fast": fast}


def job(config: Config) -> Job:
    wanted = config.samples
    steps = STRATEGIES[wanted.strategy]
    kept_ms = eager.state_ttl_ms(wanted.window_ms, wanted.outage_ms)
    options = {"table.exec.state.ttl": f"{kept_ms} ms"} if wanted.live else samples.ONE_PHASE
    if not wanted.joins_plainly:  # of strategy wait: the configuration has refused the others
        return Job("samples", lambda where: samples.tables(where, wanted.out_of_orderness_ms), targets.inserts(wanted.rules),
                   targets.views(wanted.targets, wanted.out_of_orderness_ms, wanted.rules), options=options)
    return Job("samples", lambda where: steps.tables(where, wanted.out_of_orderness_ms), steps.inserts(wanted.target),
               steps.views(wanted.window_ms, wanted.target, wanted.out_of_orderness_ms), options=options)


if __name__ == "__main__":
    run(job)
