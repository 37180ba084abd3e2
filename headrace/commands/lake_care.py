"""`headrace data compact` and `expire`: the care of the sample library's files (docs/data.md)."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands import options

if TYPE_CHECKING:
    from headrace.lake.place import Place
    from headrace.lake.rewriting import Rewritten

MIB = 1 << 20
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it only what would be done is said.")]


def compact(
    lake: options.Lake = None,
    open_too: Annotated[bool, typer.Option("--open", help="The newest hour of event time too, which is still written to.")] = False,
    file: options.File = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Make one file of the lake's small ones of each closed hour, and one manifest of all: exactly the same samples. The lake's writer may
    run; killed anywhere, each sample is there once, and the next `compact` ends it."""
    from headrace.lake import rewriting
    from headrace.lake.store import at

    made = rewriting.compact(at(options.lake_at(lake, file, data)), open_too=open_too)
    if as_json:
        typer.echo(json.dumps(vars(made), indent=2))
    elif made.changed:
        typer.echo(f"{made.files[0]:,} files ({made.bytes[0] / MIB:,.1f} MiB) are {made.files[1]:,} ({made.bytes[1] / MIB:,.1f} MiB),"
                   f" {made.manifests[0]:,} manifests are 1; {made.rows[1]:,} samples as before")
    else:
        typer.echo(f"nothing to do: {made.files[0]:,} files of {made.rows[0]:,} samples, 1 manifest")


def expire(
    before: Annotated[str | None, typer.Option("--before", metavar="TIME", help="Hours of event time that end by then: 2026-11-30,"
                                               " 2026-11-30T07; UTC, or with a zone.")] = None,
    older_than: Annotated[str | None, typer.Option("--older-than", metavar="AGE", help="30d, 12h: before the newest sample's event time,"
                                                   " which in a replay of an old log is not today.")] = None,
    yes: Yes = False,
    lake: options.Lake = None,
    file: options.File = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Remove old hours of event time from the lake, whole ones only. Says what would go, and goes ahead with --yes."""
    from headrace.lake import rewriting
    from headrace.lake.store import at

    place = options.lake_at(lake, file, data)
    before_ms = _before_ms(place, before, older_than)
    made = rewriting.expire(at(place), before_ms, dry_run=not yes)
    if as_json:
        typer.echo(json.dumps({"before_ms": before_ms, "done": yes, **vars(made)}, indent=2))
    else:
        typer.echo(f"{'removed' if yes else 'would remove'}: {made.rows[0] - made.rows[1]:,} of {made.rows[0]:,} samples,"
                   f" {made.files[0] - made.files[1]:,} files, {(made.bytes[0] - made.bytes[1]) / MIB:,.1f} MiB, of"
                   f" {len(made.hours):,} hours before"
                   f" {datetime.fromtimestamp(before_ms / 1000, timezone.utc):%Y-%m-%d %H:%M} UTC{_span(made)}")
    if not yes:
        typer.echo("nothing was removed: say --yes", err=True)
        raise typer.Exit(2)


def _before_ms(place: Place, before: str | None, older_than: str | None) -> int:
    from headrace.features.durations import milliseconds
    from headrace.lake import reader
    from headrace.lake.errors import BadRange

    found = reader.opened(place)
    if (before is None) == (older_than is None):
        raise BadRange("say either --before TIME or --older-than AGE")
    if before is not None:
        return reader.ms_of(before) or 0
    try:
        age_ms = int(milliseconds(older_than))
    except ValueError as error:
        raise BadRange(f"--older-than {error}") from None
    return max((one.ts_ms_max for one in found.files), default=0) - age_ms


def _span(made: Rewritten) -> str:
    return f": {made.hours[0]} to {made.hours[-1]}" if made.hours else ""
