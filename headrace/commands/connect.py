"""`headrace connect`: try what headrace is connected to, and write what Flink's hosts need to connect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.commands.options import Data, File, Json, configured

app = typer.Typer(no_args_is_help=True, help="Existing Kafka, registry and Flink.")


@app.callback()
def group() -> None:
    """Existing Kafka, registry and Flink."""


@app.command("check")
def check(data: Data = None, file: File = None, as_json: Json = False, only: Annotated[str, typer.Option(
        help="Parts by comma: kafka, topics, registry, flink, engine.")] = "") -> None:
    """Try Kafka, its topics, the registry, Flink and the engine, and say of each what is wrong. Exits with 1 when anything is."""
    import json

    from rich.console import Console
    from rich.table import Table

    from headrace.connect import PARTS
    from headrace.connect import check as tried

    found = tried(configured(file, data), tuple(name.strip() for name in only.split(",") if name.strip()) or PARTS)
    if as_json:
        typer.echo(json.dumps([one._asdict() for one in found], indent=2))
    else:
        shown = Table("", "what", "found", "to do", box=None)
        for one in found:
            shown.add_row("ok" if one.ok else "no", one.name, one.found, one.todo)
        Console().print(shown)
    if not all(one.ok for one in found):
        raise typer.Exit(1)


@app.command("secrets")
def secrets(folder: Annotated[Path, typer.Argument(help="Folder to write; put it on every Flink host as flink.secrets_dir.")],
            data: Data = None, file: File = None) -> None:
    """Write the files with which Flink's hosts reach Kafka and the registry: passwords and certificates, readable by their owner alone."""
    from headrace.secrets import LOGIN, needed, write
    from headrace.streaming.secured import LOGIN_OPTION

    config = configured(file, data)
    if not needed(config):
        typer.echo("nothing to write: neither Kafka nor the registry asks for a user or a certificate")
        return
    for path in write(config, folder):
        typer.echo(str(path))
    if config.registry.username:
        typer.echo(f"start TaskManagers with env.java.opts.taskmanager: -D{LOGIN_OPTION}=SECRETS_DIR/{LOGIN}")
