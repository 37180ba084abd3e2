"""`headrace up`, `status`, `down`, `url` and `serve`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from headrace.commands.options import Data, File, Json, configured
from headrace.config import Config
from headrace.job_names import job_names

WIDE = 1000


class UnknownAddress(Exception):
    """`headrace url` names a part that has no address."""


def up(
    data: Data = None,
    file: File = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when all is ready; `headrace down` stops it.")] = False,
    only: Annotated[str, typer.Option("--only", help="Parts by comma: kafka,registry,ps,features,ann,replica,engine,watch,lake,flink.")]
    = "",
) -> None:
    """Start the local stack and keep it alive until Ctrl-C; what dies is started again."""
    from headrace import stack
    from headrace.children import chosen

    config = configured(file, data, running=False)
    parts = chosen(only)
    if not detach and data is not None and data.resolve() != configured(file, None, running=False).stack.data_dir.resolve():
        typer.echo(f"this stack's commands take --data {data}: headrace status --data {data}, headrace jobs submit --data {data}, ...")
    if detach:
        from headrace.detach import up_detached

        up_detached(config, file, only, typer.echo)
    else:
        stack.up(config, typer.echo, parts)


def status(data: Data = None, file: File = None, as_json: Json = False) -> None:
    """Show every process of the running stack: pid, state, memory with its children, address, restarts, log."""
    from headrace.status import rows, table

    config = configured(file, data)
    found = rows(config.stack.data_dir)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif found is None:
        typer.echo(f"no stack runs on {config.stack.data_dir}; `headrace up` starts one{_other(config)}")
    else:
        from rich.console import Console

        from headrace.versions import told as serving
        from headrace.watch import feature_figures
        from headrace.watch.figures import read

        # A pipe has no width: what reads it gets every cell whole.
        Console(width=None if sys.stdout.isatty() else WIDE).print(table(found))
        if any(row["name"] == "engine" for row in found) and (told := _clock(config)):
            typer.echo(told)
        if any(row["name"] == "replica" for row in found):
            typer.echo(serving(config.stack.data_dir / "versions", config.model.name))
        if any(row["name"] == "features" for row in found):
            typer.echo(_jobs(config))
        watched = read(config.watch.http_port) if any(row["name"] == "watch" for row in found) else None
        if watched is not None:
            typer.echo(watched.sentence())
            if features := feature_figures.read(config.watch.http_port):
                typer.echo(feature_figures.sentence(features))
    if found is None:
        raise typer.Exit(1)


def _clock(config: Config) -> str:
    """What the stack's clock means, "" when the engine does not say."""
    from headrace.access import given
    from headrace.clock import EngineUnavailable, StackClock, sentence

    try:
        with closing(StackClock(**given(config.engine), timeout_s=2.0)) as clock:
            return sentence(clock.state())
    except EngineUnavailable:
        return ""


def _jobs(config: Config) -> str:
    """The newest job of each name, as the cluster has it."""
    from headrace.flink_rest import FlinkRefused, FlinkRest, FlinkUnavailable

    try:
        rest = FlinkRest(config.flink.url, timeout_s=2.0)
        states, alive = rest.states(), Counter(job["name"] for job in rest.alive())
    except (FlinkUnavailable, FlinkRefused) as error:
        return f"jobs: {error}"
    if not states:
        return "jobs: none was submitted; `headrace jobs submit`"
    absent = [name for name in job_names(config) if name not in states]
    told = [f"{name} {state}{f' ({alive[name]} jobs)' if alive[name] > 1 else ''}" for name, state in states.items()]
    return f"jobs: {', '.join(told)}" + (f"; not submitted: {', '.join(absent)}" if absent else "")


def _other(config: Config) -> str:
    """That an engine answers nevertheless, which url, emit and replay would go to."""
    if not _clock(config):
        return ""
    return (f". An engine answers at {config.engine.url}, where events and replays from here go: if it is of another folder, name that,"
            " `headrace status --data DIR`")


def down(data: Data = None, file: File = None) -> None:
    """Stop the running stack, the last part first."""
    from headrace.stack import down as end

    config = configured(file, data)
    typer.echo("down" if end(config.stack.data_dir) else f"no stack runs on {config.stack.data_dir}")


def url(name: Annotated[str, typer.Argument(help="engine, registry, flink, kafka, features, ann, replica or ps.")], data: Data = None,
        file: File = None) -> None:
    """Print the address of a part of the stack."""
    config = configured(file, data)
    known = {"engine": config.engine.url, "registry": config.registry.url, "flink": config.flink.url, "kafka": config.kafka.bootstrap,
             "features": config.features.address, "ann": config.ann.address, "replica": ",".join(config.replica.addresses),
             "ps": ",".join(config.ps.addresses)}
    if name not in known:
        raise UnknownAddress(f"{name!r} has no address; those that have one are {', '.join(known)}")
    typer.echo(known[name])


def serve(
    role: Annotated[str, typer.Argument(help="registry, features, features_replica, ps, replica, ann, engine, watch or lake.")],
    index: Annotated[int, typer.Option("--index", help="Which of several processes of the role.")] = 0,
    file: File = None,
    data: Annotated[Path | None, typer.Option("--data", help="Data folder.")] = None,
) -> None:
    """Run one role in this process until SIGTERM; the stack does this for each."""
    from headrace.serve import serve as run

    run(configured(file, data, running=file is None), role, index)
