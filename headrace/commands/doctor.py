"""`headrace doctor`: what is here, what is not, what to do."""

from __future__ import annotations

import json

import typer

from headrace.commands.options import Data, File, Json, configured


def command(data: Data = None, file: File = None, as_json: Json = False) -> None:
    """Say what is here, what is not, and what to do."""
    from headrace.doctor import examine

    findings = examine(configured(file, data))
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            todo = f"; do: {finding.todo}" if finding.todo else ""
            typer.echo(f"{'ok  ' if finding.ok else 'NOT '} {finding.name:<15} {finding.found}{todo}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
