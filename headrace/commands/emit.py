"""`headrace emit`: events from standard input to the engine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headrace.commands.options import Data, File, configured


def command(
    engine: Annotated[str | None, typer.Option(help="Address of the engine; default: the configured one.")] = None,
    config: File = None,
    data: Data = None,
) -> None:
    """Send JSON lines from standard input to POST /events; exit code 1 when any line was refused, 2 when the engine does not answer."""
    import httpx

    from headrace.access import given
    from headrace.api import bearer
    from headrace.config import ConfigError
    from headrace.emit import EmitFailed, emit, poster

    def say(line: int, reason: str) -> None:
        typer.echo(f"line {line}: refused: {reason}", err=True)

    try:
        settings = configured(config, data).engine
        own = given(settings)
        with httpx.Client(timeout=30.0, trust_env=False, headers=bearer(own["key"]), verify=own["verify"]) as client:
            verdicts = emit(sys.stdin, poster(engine or settings.url, client), say)
    except (ConfigError, EmitFailed) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{verdicts.accepted} accepted, {len(verdicts.refused)} refused")
    if verdicts.note:
        typer.echo(verdicts.note, err=True)
    if verdicts.refused:
        raise typer.Exit(1)
