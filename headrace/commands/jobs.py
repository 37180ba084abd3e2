"""`headrace jobs`: the Flink jobs of the configured stack."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from headrace import ingests
from headrace.commands.options import Data, File, configured
from headrace.config import Config
from headrace.job_names import job_names

app = typer.Typer(no_args_is_help=True, help="Submit, list, stop and resume the Flink jobs: features, samples, train, vectors,"
                       " train-NAME of each [models.NAME], ingest-NAME of each `headrace ingest`.")
Names = Annotated[list[str] | None, typer.Argument(help="Jobs; all when none is named.")]


def _running(config: Config) -> dict[str, str]:
    """Name by job id of all that has not ended."""
    from headrace.flink_rest import TERMINAL, FlinkRest

    return {job["jid"]: job["name"] for job in FlinkRest(config.flink.url).jobs() if job["state"] not in TERMINAL}


def _chosen(names: list[str] | None, config: Config, others: list[str] | None = None) -> list[str]:
    """`others`: of the ingests, those that are meant when none is named; by default all."""
    taken = ingests.job_names(config)
    for name in names or []:
        if name not in (known := [*job_names(config), *taken]):
            raise typer.BadParameter(f"{name!r} is no job; the jobs are {', '.join(known)}")
    return list(names or [*job_names(config), *(taken if others is None else others)])


def _patience(doing: str, names: list[str]) -> None:
    """For who looks on: Flink's client plans in silence."""
    if sys.stderr.isatty():
        typer.echo(f"{doing} {', '.join(names)}: 20 s to two minutes", err=True)


@app.command()
def submit(names: Names = None, file: File = None, data: Data = None) -> None:
    """Submit jobs from one client; a job that runs already is left alone. Ingests only by name."""
    from headrace.submission import submit as send

    config = configured(file, data)
    before, chosen = _running(config), _chosen(names, config, [])
    _patience("submitting", chosen)
    for name, job in send(config, chosen).items():
        typer.echo(f"{name}: {job}{' (runs already)' if job in before else ''}")


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, file: File = None, data: Data = None) -> None:
    """Every job that the cluster remembers: name, state, id, since when."""
    from headrace.flink_rest import FlinkRest

    jobs = FlinkRest(configured(file, data).flink.url).jobs()
    if as_json:
        typer.echo(json.dumps([{key: job[key] for key in ("name", "state", "jid", "start-time", "duration")} for job in jobs], indent=2))
        return
    for job in sorted(jobs, key=lambda job: job["start-time"]):
        typer.echo(f"{job['name']:<20} {job['state']:<12} {job['jid']}  {job['duration'] / 1000:.0f} s")


@app.command()
def logs(name: str, file: File = None, data: Data = None) -> None:
    """Why a job failed last: the Python cause here, the whole Java trace in a file."""
    from headrace.flink_rest import FlinkRest

    config = configured(file, data)
    rest = FlinkRest(config.flink.url)
    jobs = sorted((job for job in rest.jobs() if job["name"] == name), key=lambda job: job["start-time"])
    if not jobs:
        typer.echo(f"error: no job {name!r} on {config.flink.url}; `headrace jobs list` shows what there is", err=True)
        raise typer.Exit(1)
    cause, trace = rest.failure(jobs[-1]["jid"])
    if not trace:
        typer.echo(f"{name} is {jobs[-1]['state']} and has not failed")
        return
    file = config.stack.data_dir / "logs" / f"job-{name}.trace"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(trace)
    typer.echo(cause)
    typer.echo(f"the whole trace: {file}", err=True)


@app.command()
def stop(names: Names = None, file: File = None, data: Data = None) -> None:
    """Stop jobs, every one of a name, each with a savepoint; `resume` starts from that of the one that ran longest."""
    from headrace.submission import stop as end

    config = configured(file, data)
    ended = end(config, _chosen(names, config))
    for name, savepoints in ended.items():
        for savepoint in savepoints:
            typer.echo(f"{name}: {savepoint}")
        if len(savepoints) > 1:
            typer.echo(f"{len(savepoints)} jobs named {name} ran; `headrace jobs resume {name}` starts one, from the first of these",
                       err=True)
    if not ended:
        typer.echo("none of these jobs runs", err=True)
        sys.exit(1)


@app.command()
def resume(names: Names = None, file: File = None, data: Data = None) -> None:
    """Submit jobs from the savepoint of their last `stop`, or, after a `down` without one, from their newest checkpoint."""
    from headrace.submission import resumable
    from headrace.submission import resume as again

    config = configured(file, data)
    ended = [name for name in ingests.job_names(config) if name in resumable(config)]
    before, chosen = _running(config), _chosen(names, config, ended)
    _patience("resuming", chosen)
    for name, job in again(config, chosen, lambda text: typer.echo(text, err=True)).items():
        typer.echo(f"{name}: {job}{' (runs already)' if job in before else ''}")


@app.command()
def recover(insist: Annotated[bool, typer.Option("--insist", help="Try again until they run.")] = False, file: File = None,
            data: Data = None) -> None:
    """Submit again what a JobManager that died has forgotten, from the newest checkpoints; the local stack does this by itself."""
    from headrace.submission import insistently
    from headrace.submission import recover as again

    config = configured(file, data)
    found = insistently(lambda: again(config), typer.echo) if insist else again(config)
    for name, job in found.items():
        typer.echo(f"{name}: {job}")
    if not found:
        typer.echo("no submitted job is missing")
