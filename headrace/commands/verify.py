"""`headrace verify loop`: nothing lost and nothing doubled, whatever dies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="Prove what the platform promises on a stack of its own.")


class VerificationFailed(Exception):
    """What was counted does not agree with what was sent; the message names each account. The data folder is left to be looked at."""


@app.callback()
def verify() -> None:
    """Prove what the platform promises, on a stack of its own."""


@app.command()
def loop(
    kills: Annotated[int, typer.Option(min=0, help="Processes ended while the stream runs.")] = 30,
    seed: Annotated[int, typer.Option(help="Moments and victims.")] = 1,
    file: Annotated[Path | None, typer.Option("--file", help="The log; MovieLens 100K by default.")] = None,
    mapping: Annotated[Path | None, typer.Option("--mapping", help="MAPPING.toml of --file.")] = None,
    rate: Annotated[float, typer.Option(min=1, help="Rows sent a second at most.")] = 400.0,
    rows: Annotated[int, typer.Option(min=100, help="Rows sent at least.")] = 5000,
    data: Annotated[Path, typer.Option("--data", help="Data folder of the stack; emptied first.")] = Path(".headrace/verify"),
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")] = None,
) -> None:
    """Stream a log through a stack while its processes are ended at random moments, then count everything from outside."""
    from headrace import mapping as mappings
    from headrace import movielens, state
    from headrace.config import ConfigError
    from headrace.rows import load
    from headrace.verify.loop import run

    data = data.resolve()
    if state.read(data) is not None:
        raise VerificationFailed(f"a stack runs on {data} already: `headrace down --data {data}` stops it")
    if (file is None) != (mapping is None):
        raise ConfigError("--file and --mapping go together")
    if file is None or mapping is None:
        folder = data.parent / "data" / movielens.NAME
        file, _ = movielens.get(folder)
        mapping = folder / "mapping.toml"
    log = load(file, mappings.load(mapping))
    shutil.rmtree(data, ignore_errors=True)
    console = Console(soft_wrap=True, highlight=False)
    result = run(data, log, kills=kills, seed=seed, rate=rate, rows_min=min(rows, len(log)), say=console.print)
    if as_json is not None:
        as_json.write_text(json.dumps(result, indent=2) + "\n")
    _tell(console, result)
    wrong = [f"{one['check']}: {one['found']}, expected {one['expected']}" for one in result["checks"] if not one["agree"]]
    if result["kills_done"] != kills:
        wrong.append(f"{result['kills_done']} of {kills} kills were done")
    if wrong:
        raise VerificationFailed("; ".join(wrong) + f" (data in {data})")


def _tell(console: Console, result: dict[str, Any]) -> None:
    back = Table("process", "kills", "median s", "worst s", title="back, and learning again where training passes through it",
                 title_justify="left")
    for name, row in result["recovery"].items():
        back.add_row(name, str(row["kills"]), *(f"{row[key]:.1f}" if row[key] is not None else "-" for key in ("median_s", "worst_s")))
    console.print(back)
    account = Table("account", "found", "expected", "", title="counted from outside", title_justify="left")
    for one in result["checks"]:
        account.add_row(one["check"], f"{one['found']:,}", f"{one['expected']:,}", "agree" if one["agree"] else "[red]DIFFER[/red]")
    console.print(account)
    dropped = ", ".join(f"{count:,} {name}" for name, count in result["dropped"].items())
    copies = ", ".join(f"{count:,} of {topic}" for topic, count in result["copies"].items())
    console.print(f"{result['kills_done']} kills, {result['rows']:,} rows in {result['seconds']:.0f} s; dropped as known: {dropped};"
                  f" further copies in the topics: {copies}")
