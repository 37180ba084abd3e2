"""The floors of the four jobs (streaming/floors.py), for `headrace bench pipeline`: submitted as features-floor and so on."""

from __future__ import annotations

from headrace.config import Config
from headrace.jobs.launch import Job
from headrace.streaming import floors


def job(config: Config, name: str) -> Job:
    """The job `name` with an identity in the place of its Python function."""
    functions, views, inserts = floors.floor(name, config.model.name, config.target_of())
    return Job(f"{name}-floor", lambda where: floors.tables(name, where, config.model.name, config.samples.out_of_orderness_ms), inserts,
               views, functions)
