"""`headrace demo`: the whole loop on a laptop, learning MovieLens 100K from a live stream."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def command(
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up, with its addresses.")] = False,
    data: Annotated[Path, typer.Option("--data", help="Data folder of the demo's stack; emptied first.")] = Path(".headrace/demo"),
    rate: Annotated[float, typer.Option(min=1, help="Ratings sent a second.")] = 2500.0,
    limit: Annotated[int | None, typer.Option(min=100, help="Only the first N ratings.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write what was printed as a picture.")] = None,
    shuffle_labels: Annotated[int | None, typer.Option(metavar="SEED", help="Permute the labels: a control, AUC 0.5.")] = None,
) -> None:
    """Start a stack, submit the jobs, stream MovieLens 100K through it, show what the model learns, and check the accounts."""
    from headrace import state
    from headrace.demo.run import DemoFailed, run

    data = data.resolve()
    if state.read(data) is not None:
        raise DemoFailed(f"a stack runs on {data} already: `headrace down --data {data}` stops it")
    shutil.rmtree(data, ignore_errors=True)
    console = Console(record=True, width=132, highlight=False) if svg else Console(soft_wrap=True, highlight=False)
    result = run(data, console, limit=limit, rate=rate, keep=keep, shuffle=shuffle_labels)
    if svg is not None:
        console.save_svg(str(svg), title="make demo")
    if as_json is not None:
        as_json.write_text(json.dumps(result, indent=2) + "\n")
