"""`headrace config`: the configuration as it would be used."""

from __future__ import annotations

import typer

from headrace.commands.options import Data, File, configured

app = typer.Typer(no_args_is_help=True, help="Show the configuration.")


@app.callback()
def group() -> None:
    """Show the configuration."""


@app.command("show")
def show(data: Data = None, file: File = None) -> None:
    """Print the configuration as a headrace.toml, every key with what it means."""
    from headrace.config import show as text

    typer.echo(text(configured(file, data)), nl=False)
