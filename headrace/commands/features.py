"""`headrace features`: definitions as they are read, what a ranker sees by them, a trial on a log; how they do is feature_quality.py."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headrace.commands import feature_backfill, feature_backup, feature_quality, options
from headrace.commands.options import Data, File, Json
from headrace.commands.tables import print_table

if TYPE_CHECKING:
    from headrace.features.definitions import Definition
    from headrace.features.feature_set import FeatureSet

app = typer.Typer(no_args_is_help=True, help="Feature definitions: list them, try them on a log, see what the ranker sees, how they"
                                             " do on the live stream; freeze one to its default.")
Files = Annotated[list[Path], typer.Option("--definitions", help="A file of definitions, .toml or .py; may stand several times. By default"
                                           " those of [features] definitions.")]
for command in (feature_quality.stats, feature_quality.freeze, feature_quality.unfreeze, feature_quality.reference, feature_quality.events,
                feature_backfill.backfill, feature_backup.backup, feature_backup.backups, feature_backup.restore):
    app.command()(command)


@app.command("list")
def list_(definitions: Files = [], as_json: Json = False, file: File = None, data: Data = None) -> None:  # noqa: B006 (typer copies it)
    """The definitions, checked, with what each takes and keeps; and the feature set's name, by which samples are known. Where a feature
    service runs, since which of its events it folds each, and whether the past was put in."""
    settings = options.configured(file, data)
    feature_set = _set(settings, definitions)
    notes = feature_backfill.notes_of(settings) if feature_set.definitions else None
    rows: list[dict[str, Any]] = [
        {"feature": one.identity, "entity": one.group, "reducer": one.reducer, **_spans(one), "takes": _takes(one),
         "default": None if feature_set.width[d] else one.blank, "bytes": 8 * int(feature_set.words[d]), "owner": one.owner,
         "freshness_ms": one.freshness_ms, "about": one.about, "place": one.place,
         "folded": None if notes is None else notes.get(one.identity)} for d, one in enumerate(feature_set.definitions)]
    if as_json:
        typer.echo(json.dumps({"feature_set": feature_set.name, "slots": feature_set.slots, "numbers": feature_set.numbers,
                               "features": rows}, indent=2))
        return
    typer.echo(f"feature set {feature_set.name}: {feature_set.F} slots, {feature_set.K} numbers")
    if not rows:
        typer.echo("no definitions: [features] definitions names their files (docs/features.md); the built-in features are always kept")
        return
    folded = {} if notes is None else {one["feature"]: feature_backfill.told_of(one["folded"]) for one in rows}
    print_table(["feature", "entity", "reducer", "takes", "bytes a row", *(["folded"] if folded else []), "owner", "about"], [
        [row["feature"], row["entity"], _kept(row), row["takes"], str(row["bytes"]), *([folded[row["feature"]]] if folded else []),
         row["owner"], row["about"]] for row in rows])


@app.command()
def get(
    user: Annotated[str, typer.Option("--user", help="A user's id.")],
    item: Annotated[str, typer.Option("--item", help="An item's id.")],
    context: Annotated[list[str], typer.Option("--context", help="A context feature, field=value; may stand several times.")] = [],  # noqa: B006
    ts_ms: Annotated[int | None, typer.Option("--ts-ms", help="Read as of this event time; by default now, by the stack's clock.")] = None,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """What the ranker sees of a user and an item: every slot with a value, and every number."""
    from headrace.access import given
    from headrace.api import Client
    from headrace.config import ConfigError

    fields = dict(one.split("=", 1) for one in context if "=" in one)
    if len(fields) < len(context):
        raise ConfigError(f"--context {next(one for one in context if '=' not in one)!r}: write field=value")
    with closing(Client(**given(options.configured(file, data).engine))) as client:
        found = client.features(user, item, ts_ms=ts_ms, context=fields)
    if as_json:
        typer.echo(json.dumps({"user": user, "item": item, "ts_ms": found.ts_ms, "features_sequence": found.features_sequence,
                               "slots": {one.slot: {"name": one.name, "value": one.value} for one in found.slots},
                               "numbers": found.numbers}, indent=2))
        return
    typer.echo(f"{user} and {item} at {found.ts_ms}, after {found.features_sequence:,} events")
    print_table(["slot", "name", "value"], [[one.slot, one.name or "", f"{one.value:g}"] for one in found.slots])
    print_table(["number", "value"], [[name, f"{value:g}"] for name, value in found.numbers.items()])


@app.command("try")
def try_(
    log: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet, CSV, JSON lines (both gzip too) or an Avro container.")],
    mapping: Annotated[Path, typer.Option("--mapping", help="MAPPING.toml: which column is what.")],
    definitions: Files = [],  # noqa: B006
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows in time order.")] = None,
    last: Annotated[int, typer.Option(min=0, help="Show what the last N exposures saw.")] = 3,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """Fold FILE by the definitions in this process: how many events each counts, what exposures see of it. Nothing of a stack is asked."""
    from headrace import rows as rows_of
    from headrace.config import ConfigError
    from headrace.schemas import mapping as mappings
    from headrace.tried import tried

    settings = options.configured(file, data, running=False)
    feature_set = _set(settings, definitions)
    if not feature_set.definitions:
        raise ConfigError("there are no definitions to try: name a file with --definitions, or in [features] definitions")
    rows = rows_of.load(log, mappings.load(mapping))
    rows = rows if limit is None else rows.first(limit)
    with Console(stderr=True).status("kernels are compiled") as status:
        found = tried(rows, feature_set, settings.features.half_life_s, last,
                      lambda done: status.update(f"{done:,} of {len(rows):,} rows"), settings.features.idle_s)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{found['rows']:,} rows, {found['exposures']:,} exposures")
    print_table(["feature", "counted", "blank", "min", "mean", "max"], [
        [row["feature"], f"{row['counted']:,}", f"{row['blank']:.1%}",
         *([f"{row[key]:g}" for key in ("min", "mean", "max")] if "min" in row else ["", f"{row['ids']:.2f} ids", ""])]
        for row in found["definitions"]])
    for one in found["last"]:
        typer.echo(f"\n{one['user']} and {one['item']} at {one['ts_ms']}")
        print_table(["feature", "value"], [[name, ", ".join(value) if isinstance(value, list) else f"{value:g}"]
                                      for name, value in one["features"].items()])


@app.command()
def suggest(
    log: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet, CSV, JSON lines (both gzip too) or an Avro container.")],
    mapping: Annotated[Path, typer.Option("--mapping", help="MAPPING.toml: which column is what.")],
    output: Annotated[Path | None, typer.Option("--output", help="Write the definitions to this file.")] = None,
) -> None:
    """Propose definitions for a log, each with its reason in figures: a file to edit and to try."""
    from headrace import rows as rows_of
    from headrace.schemas import mapping as mappings
    from headrace.suggested import suggested

    text = suggested(rows_of.load(log, mappings.load(mapping)))
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text)
        typer.echo(f"{text.count('[feature.')} definitions in {output}: headrace features try {log} --mapping {mapping} --definitions"
                   f" {output}")


def _set(settings: Any, definitions: list[Path]) -> FeatureSet:
    from headrace.feature_set import feature_set_of

    if definitions:
        settings.features.definitions = definitions
    return feature_set_of(settings)


def _spans(one: Definition) -> dict[str, str]:
    from headrace.features.durations import written

    return {"window": written(one.window_ms or float("inf")), "half_life": written(one.half_life_ms or float("inf")),
            "ttl": written(one.ttl_ms)}


def _kept(row: dict[str, Any]) -> str:
    return " ".join([row["reducer"], *(f"{key}={row[key]}" for key in ("window", "half_life", "ttl") if row[key])])


def _takes(one: Definition) -> str:
    """Which events and what of them, in a line."""
    if one.function is not None:
        return f"{one.function.__name__}(event)"
    value = "" if one.kind.takes == "nothing" or (one.kind.takes == "ratio" and one.value == 1.0) else f"{one.value} of "
    return f"{value}{_events(one.where)}" + (f" over {_events(one.over)}" if one.over is not None else "")


def _events(condition: Any) -> str:
    said = ["|".join(condition.actions) or "all", *(f"scene={scene}" for scene in condition.scenes)]
    said += [f"{name}={'|'.join(values)}" for name, values in condition.columns]
    said += [f"value>={condition.least:g}"] if condition.least > float("-inf") else []
    said += [f"value<={condition.most:g}"] if condition.most < float("inf") else []
    return " ".join(said)
