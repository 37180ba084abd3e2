"""`python -m headrace.jobs NAME...`: submits jobs to the configured session cluster from one client, and prints {name: job id} as JSON.

`headrace jobs submit` runs this with Java's and Flink's folders in the child's environment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

from headrace import ingests, jars, java
from headrace.config import Config, load
from headrace.job_names import job_names
from headrace.jobs.launch import Job, pin, submit

FLOOR = "-floor"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m headrace.jobs")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--config", default=None)
    parser.add_argument("--savepoints", default="{}", help="JSON: job name to savepoint or checkpoint path")
    parser.add_argument("--pin", action="store_true", help="write plans/NAME.json instead of submitting")
    given = parser.parse_args()
    config = load(given.config)
    known = [*job_names(config), *ingests.job_names(config)]
    for name in given.names:
        if name.removesuffix(FLOOR) not in known:
            parser.error(f"{name!r} is no job; the jobs are {', '.join(known)}")
    savepoints = json.loads(given.savepoints)
    target = urlsplit(config.flink.url).netloc
    ids = {}
    for name in given.names:
        job = _job(config, name)
        if given.pin:
            print(f"{name}: {pin(job, config, _local_jars())}")
            continue
        kept = "" if name.startswith(ingests.PREFIX) else savepoints.get(name, "")  # an ingest goes on where its group stands
        ids[name] = submit(job, config, target=target, savepoint=kept)
        print(f"{name}: {ids[name]}", file=sys.stderr, flush=True)
    if not given.pin:
        print(json.dumps(ids))


def _local_jars() -> tuple[Path, ...]:
    """Of the local stack, whose java plans too."""
    java.planner()
    return tuple(jars.paths(jars.folder(java.inherited()), "flink"))


def _job(config: Config, name: str) -> Job:
    if name.startswith(ingests.PREFIX):
        return importlib.import_module("headrace.jobs.ingest").job(config, ingests.load(config, name.removeprefix(ingests.PREFIX)))
    if name.endswith(FLOOR):
        return importlib.import_module("headrace.jobs.floors").job(config, name.removesuffix(FLOOR))
    file, _, model = name.partition("-")
    return importlib.import_module(f"headrace.jobs.{file}").job(config, *([config.models[model]] if model else []))


if __name__ == "__main__":
    main()
