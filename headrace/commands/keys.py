"""`headrace keys`: API keys of the engine; what is kept are their hashes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="API keys of the engine: made, listed, taken away.")
File = Annotated[Path | None, typer.Option("--file", help="File of keys; default: engine.keys_file, else keys.json in the data folder.")]
Config = Annotated[Path | None, typer.Option("--config", help="headrace.toml to use.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is: feed-service.")],
    scopes: Annotated[str, typer.Option(help="events, recall, recommend, control: some of them, with commas.")],
    file: File = None,
    config: Config = None,
) -> None:
    """Make a key and print it, this once; the file keeps its hash. An engine that runs knows it within a second."""
    from headrace.engine.keys import create as make

    where = _file(file, config)
    token = make(where, name, tuple(scope.strip() for scope in scopes.split(",") if scope.strip()))
    typer.echo(token)
    typer.echo(f"kept as a hash in {where}; engine.keys_file names that file; send it as Authorization: Bearer KEY", err=True)


@app.command("list")
def listed(file: File = None, config: Config = None) -> None:
    """Names, scopes and ages; the keys themselves are not kept."""
    from headrace.engine.keys import read

    for key in read(_file(file, config)):
        made = time.strftime("%Y-%m-%d", time.gmtime(key.made_s))
        typer.echo(f"{key.name}\t{','.join(key.scopes)}\t{made}\tsha256 {key.sha256[:12]}...")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="As `headrace keys list` shows it.")],
    file: File = None,
    config: Config = None,
) -> None:
    """Take a key away. An engine that runs refuses it within a second."""
    from headrace.engine.keys import revoke as take

    take(_file(file, config), name)
    typer.echo(f"{name} is revoked")


def _file(file: Path | None, config: Path | None) -> Path:
    from headrace.config import load

    settings = load(config)
    return file or settings.engine.keys_file or settings.stack.data_dir / "keys.json"
