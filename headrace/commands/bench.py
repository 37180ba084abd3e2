"""`headrace bench`: figures, each beside a peer or a limit measured in the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def command(
    name: Annotated[str | None, typer.Argument(help="A bench of --list.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes; ends within 50 s.")] = False,
    data: Annotated[Path | None, typer.Option("--data", help="Folder with real data, for a bench that takes it.")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the benches and what each needs.")] = False,
) -> None:
    """Measure NAME, print a table, and write JSON."""
    from headrace.bench.catalog import CATALOG
    from headrace.bench.run import BenchNeeds, UnknownBench, run

    if listed:
        for known, entry in CATALOG.items():
            typer.echo(f"{known}: {entry.what}; needs {entry.needs}")
        return
    if name is None:
        raise typer.BadParameter(f"name a bench: {', '.join(CATALOG)}")
    try:
        result = run(name, quick, data=data)
    except (UnknownBench, BenchNeeds) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    Console().print(result.table())
    if output is not None:
        output.write_text(json.dumps(result.document(), indent=2) + "\n")
