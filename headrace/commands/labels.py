"""`headrace labels`: what people say of items and samples (docs/labels.md)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.commands.options import Data, File, Json, Lake, configured, lake_at
from headrace.commands.tables import print_table

if TYPE_CHECKING:
    from headrace.labels.queue import Next

app = typer.Typer(no_args_is_help=True, help="Labels by people: import, export, what to label next, how far labellers agree.")
Target = Annotated[str | None, typer.Option("--target", help="An action, as click, or a quality, as spam; default samples.target.")]
Labeller = Annotated[str | None, typer.Option("--labeller", help="Who labels.")]


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="FILE.csv, .jsonl or .parquet: item_id, label, and user_id, target, labeller,"
                                         " ts_ms where rows differ in them.")],
    target: Annotated[str | None, typer.Option("--target", help="Target of rows that do not say.")] = None,
    labeller: Annotated[str | None, typer.Option("--labeller", help="Who labelled, of rows that do not say.")] = None,
    file: File = None,
    data: Data = None,
) -> None:
    """Write the labels of a file to topic `labels`, all or none; the last word of a labeller on a unit holds."""
    from headrace.labels import files, live

    labels = files.read(path, int(time.time() * 1000), target, labeller)
    typer.echo(f"{live.send(configured(file, data), labels):,} labels in topic {live.TOPIC}")


@app.command()
def export(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="FILE.csv, .jsonl or .parquet.")],
    target: Annotated[str | None, typer.Option("--target", help="Only labels of this target.")] = None,
    file: File = None,
    data: Data = None,
) -> None:
    """Write the last word of each labeller on each unit into one file, which `import` takes."""
    from headrace.labels import files, live
    from headrace.labels.label import order

    held = live.held(configured(file, data))
    chosen = sorted((one for one in held if target in (None, one.unit.target)), key=order)
    typer.echo(f"{files.write(path, chosen):,} labels in {path}")


@app.command()
def next(
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 20,
    labeller: Labeller = None,
    target: Target = None,
    by_user: Annotated[bool, typer.Option("--by-user", help="Items as shown to a user, not items.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Only what somebody else has labelled: labels for `agreement`.")] = False,
    since: Annotated[str | None, typer.Option("--since", help="Exposures from then on: 2026-11-30, 2026-11-30T07.")] = None,
    lake: Lake = None,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """What to label next: where the model is least certain and most is shown, of the lake's samples; without what has been labelled, by
    --labeller or by anybody."""
    from itertools import islice

    from headrace.labels import live
    from headrace.labels.queue import COLUMNS, Exposures
    from headrace.lake.reader import by_hour, choice, opened

    config = configured(file, data)
    wanted = target or config.samples.target
    shown = Exposures(wanted, by_user)
    for table in by_hour(opened(lake_at(lake, file, data)), choice(since, None, None), COLUMNS):
        shown.add(table)
    rows = list(islice(shown.next(live.held(config), labeller, again), count))
    if as_json:
        typer.echo(json.dumps([_row(one) for one in rows], indent=2))
    elif rows:
        print_table(["item", "user", "exposures", "bits", "score", "labelled by"], [
            (one.unit.item_id, one.unit.user_id or "", f"{one.exposures:,}", f"{one.bits:,.1f}", f"{one.score:.3f}", str(one.labelled))
            for one in rows])
    else:
        typer.echo(f"nothing of target {wanted} is left to label")


@app.command()
def agreement(
    target: Annotated[str | None, typer.Option("--target", help="Only this target.")] = None,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """How far labellers agree, by target: Krippendorff's alpha of all, Cohen's kappa of two."""
    from headrace.labels import live
    from headrace.labels.agreement import agreement as agreed

    found = [one for one in agreed(live.held(configured(file, data))) if target in (None, one.target)]
    if as_json:
        typer.echo(json.dumps([{**one._asdict(), "pairs": [pair._asdict() for pair in one.pairs]} for one in found], indent=2))
        return
    if not found:
        typer.echo("there are no labels" + (f" of target {target}" if target else ""))
    for one in found:
        typer.echo(f"{one.target}: {one.units:,} units labelled, {one.twice:,} twice or more; Krippendorff's alpha {_figure(one.alpha)}")
        for pair in one.pairs:
            typer.echo(f"  {pair.first} and {pair.second}: {pair.units:,} units, the same on {pair.same:.1%}; kappa {_figure(pair.kappa)}")


def _row(one: Next) -> dict[str, Any]:
    return {**one.unit._asdict(), **{name: value for name, value in one._asdict().items() if name != "unit"}}


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
