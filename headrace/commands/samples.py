"""`headrace samples`: the sample library (docs/lake.md). Reads the lake's files alone; nothing is asked of a running stack."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.commands.options import Data, File, Json, configured, lake_at
from headrace.commands.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from headrace.config import Config
    from headrace.lake.compare import Difference
    from headrace.lake.reader import Lake

app = typer.Typer(no_args_is_help=True, help="The sample library: list, show, export, count and compare what it holds (docs/lake.md).")
MIB = 1 << 20
Where = Annotated[str | None, typer.Option("--lake", metavar="PLACE", help="The lake's folder, or s3://BUCKET/PREFIX; by default lake.dir."
                                           " PLACE@N: as it was after commit N.")]
Since = Annotated[str | None, typer.Option("--since", help="Event time from then on: 2026-11-30, 2026-11-30T07; UTC, or with a zone.")]
Until = Annotated[str | None, typer.Option("--until", help="Event time before then.")]
Target = Annotated[str | None, typer.Option("--target", help="Only samples of this target.")]


@app.command("list")
def list_(
    lake: Where = None,
    commits: Annotated[bool, typer.Option("--commits", help="By commit, with what was read, instead of by hour of event time.")] = False,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """What the lake holds by day and hour of event time: files, rows, MiB, label rate by target."""
    from headrace.lake import summary

    found = _opened(lake, file, data)
    rows = summary.commits(found) if commits else summary.partitions(found)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif commits:
        print_table(["commit", "written", "rows", "files", "MiB", "read", "duplicates", "unreadable", "gap"], [
            (str(row["commit"]), _time(row["written_ms"]), f"{row['rows']:,}", str(row["files"]), f"{row['bytes'] / MIB:.1f}",
             f"{row['records']:,}", f"{row['duplicates']:,}", f"{row['unreadable']:,}", f"{row['gap_offsets']:,}") for row in rows])
    else:
        print_table(["day", "hour", "files", "rows", "MiB", "label rate"], [
            (row["day"], f"{row['hour']:02d}", str(row["files"]), f"{row['rows']:,}", f"{row['bytes'] / MIB:.1f}", _rates(row["labels"]))
            for row in rows])


@app.command()
def show(
    sample: Annotated[str, typer.Argument(metavar="ID", help="An event_id, or the cause PARTITION:OFFSET of interactions.")],
    lake: Where = None,
    file: File = None,
    data: Data = None,
) -> None:
    """Print one sample as JSON, one a target: its columns, features by name, and lineage: offsets, file, commit, code, topic.

    By its cause few files are opened, by its event_id all of them.
    """
    from headrace.lake.found import samples_of

    place = re.fullmatch(r"(\d{1,9}):(\d{1,18})", sample)
    wanted = (int(place[1]), int(place[2])) if place else sample
    typer.echo(json.dumps(samples_of(_opened(lake, file, data), wanted), indent=2))


@app.command()
def export(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="FILE.parquet or FILE.csv (lists as text, joined by |).")],
    since: Since = None,
    until: Until = None,
    target: Target = None,
    people: Annotated[bool, typer.Option("--people", help="Labels by people (topic `labels` of the running stack) over what users did;"
                                         " column label_by says which.")] = False,
    lake: Where = None,
    file: File = None,
    data: Data = None,
) -> None:
    """Write samples into one file, in the order of event time."""
    from headrace.lake.export import export as write
    from headrace.lake.reader import choice

    found, wanted = _opened(lake, file, data), choice(since, until, target)
    rows = write(found, to, wanted, _by_people(configured(file, data))) if people else write(found, to, wanted)
    typer.echo(f"{rows:,} samples in {to}")


@app.command()
def stats(
    lake: Where = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and compare its sha256.")] = False,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """Count: rows, label rates by target and day; duplicates left out, records not readable, gaps; feature sets. Where [samples] has rules
    by which training leaves samples out, these too, by target and rule; every file is read for them."""
    from headrace.choice import choice_of
    from headrace.lake import files, summary
    from headrace.lake.left_out import left_out
    from headrace.models.choice import EVERY

    found = _opened(lake, file, data)
    for held in found.files if verify else ():
        files.checked(found.store, held)
    told = summary.stats(found) | ({"verified": True} if verify else {})
    settings = configured(file, data, running=False)
    choice = choice_of(settings)
    if choice != EVERY or settings.samples.rules.accidental_s:
        told["left_out"] = left_out(found, choice)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    for line in _said(told, found):
        typer.echo(line)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A lake's folder or s3:// URL; A@N as it was after commit N, A@N-M what"
                                              " these wrote.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    by_event: Annotated[bool, typer.Option("--by-event", help="The same event_id and target are the same sample: for lakes of two runs,"
                                           " whose topics and so causes differ.")] = False,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", metavar="COLUMN", help="Do not compare this column; may be repeated.")]
    = None,
    since: Since = None,
    until: Until = None,
    target: Target = None,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """Compare two lakes sample by sample: those in one alone, those that differ and in which columns. Exit code 1 when they differ."""
    from headrace.lake.columns import SCHEMA
    from headrace.lake.compare import compare
    from headrace.lake.errors import BadRange
    from headrace.lake.reader import read

    unknown = [name for name in ignore or () if name not in SCHEMA.names]
    if unknown:
        raise BadRange(f"--ignore {unknown[0]}: a lake has no such column; it has {', '.join(SCHEMA.names)}")
    tables = [read(lake_at(one, file, data), since=since, until=until, target=target) for one in (first, second)]
    found = compare(*tables, by_event=by_event, ignore=ignore or ())
    if as_json:
        typer.echo(json.dumps({"equal": found.equal, **vars(found)}, indent=2))
    else:
        for line in _differences(found, first, second):
            typer.echo(line)
    if not found.equal:
        raise typer.Exit(1)


def _opened(lake: str | None, file: Path | None, data: Path | None) -> Lake:
    from headrace.lake.reader import opened

    return opened(lake_at(lake, file, data))


def _by_people(config: Config) -> Callable[[pa.Table], pa.Table]:
    """What puts people's labels over those of samples."""
    from functools import partial

    from headrace.labels import live
    from headrace.labels.label import verdicts
    from headrace.labels.over import over

    return partial(over, verdicts=verdicts(live.held(config)))


def _said(told: dict[str, Any], found: Lake) -> list[str]:
    """The figures of a lake as lines."""
    lines = [f"{told['rows']:,} samples, {told['bytes'] / MIB:,.1f} MiB in {told['files']:,} files, {told['commits']:,} commits, the last"
             f" at {_time(told['written_ms'])} UTC, in {found.store}",
             f"label rate: {_rates(told['labels'])}"]
    lines += [f"  {day}: {body['rows']:,} samples, {_rates(body['labels'])}" for day, body in told["days"].items()]
    sets = ", ".join(f"{name or 'none'} {rows:,}" for name, rows in told["feature_sets"].items())
    lines += [f"feature sets: {sets}",
              f"read: {told['records']:,} records; {told['duplicates']:,} further records of a sample, left out"]
    lines += [f"of {target}: {counts['inactive_users']:,} samples of users shown too little and {counts['negatives_left_out']:,} negatives"
              f" are scored and not learnt; {counts['accidental_clicks']:,} clicks count as none"
              for target, counts in told.get("left_out", {}).items()]
    if told["dropped"]:
        lines.append(f"removed by `headrace data expire` and `erase`: {told['dropped']:,}")
    if told["unreadable"]:
        lines.append(f"not readable, and not in the lake: {told['unreadable']:,}; the first, {told['fault']}")
    lines += [f"GAP: offsets {gap['from']} to {gap['to'] - 1} of partition {gap['partition']} were removed by retention before commit"
              f" {gap['commit']} could read them" for gap in told["gaps"]]
    if len(told["topics"]) > 1:
        lines.append(f"the topic was made anew {len(told['topics']) - 1} times: what the writer had not read of an old one is not here")
    return [*lines, *(["every file has the sha256 that its manifest says"] if told.get("verified") else [])]


def _differences(found: Difference, first: str, second: str) -> list[str]:
    if found.equal:
        return [f"equal: {found.both:,} samples"]
    lines = [f"in both: {found.both:,}, of which {found.differing:,} differ", f"only in {first}: {found.only[0]:,}",
             f"only in {second}: {found.only[1]:,}"]
    lines += [f"  {name} differs in {rows:,}" for name, rows in found.columns.items()]
    for what, rows in (("differs", found.examples), (f"only in {first}", found.only_first), (f"only in {second}", found.only_second)):
        lines += [f"{what}: {json.dumps(row)}" for row in rows]
    return lines


def _rates(labels: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{target} {one['rate']:.4f}" for target, one in labels.items())


def _time(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
