"""`headrace features backup`, `backups`, `restore`: the shard's rows, causes and names, copied whole (docs/features.md)."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from headrace.commands import options
from headrace.commands.feature_quality import service
from headrace.commands.options import Data, File, Json

MIB = 1 << 20
Where = Annotated[str, typer.Argument(metavar="PLACE", help="A folder, s3://bucket/path?region=..., gs://bucket/path: what Arrow's file"
                                      " systems know.")]


def backup(where: Where, file: File = None, data: Data = None) -> None:
    """Copy all that the running feature service knows to PLACE, as of one moment; folds wait while its rows are written."""
    from headrace.feature_backup import backup as copy
    from headrace.ps.backup import BackupError, place_of

    settings, place = options.configured(file, data), place_of(where)
    name = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    with service(settings) as client:
        folder, sequence, feature_set = client.snapshot(name)
    if not Path(folder).is_dir():
        raise BackupError(f"the service has made {folder} on its host: run this there, or copy that folder")
    try:
        made = copy(Path(folder), place, name, sequence, feature_set)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    typer.echo(f"{made.name}: {made.sequence:,} events folded, {made.feature_set}, {made.bytes / MIB:,.1f} MiB")


def backups(where: Where, as_json: Json = False) -> None:
    """The whole copies at PLACE, oldest first."""
    from headrace.feature_backup import kept
    from headrace.ps.backup import place_of

    found = kept(place_of(where))
    if as_json:
        typer.echo(json.dumps([one._asdict() for one in found], indent=2))
    for one in [] if as_json else found:
        typer.echo(f"{one.name}  {one.bytes / MIB:>10,.1f} MiB  {one.sequence:,} events folded, {one.feature_set}")


def restore(
    where: Where,
    name: Annotated[str, typer.Option(help="Of the copy; by default the newest.")] = "",
    file: File = None,
    data: Data = None,
) -> None:
    """Make the service's folder, empty or away, from a copy; the service is to be stopped before. What was folded since is not in it
    (docs/features.md, "Copies")."""
    from headrace.feature_backup import kept
    from headrace.feature_backup import restore as fetch
    from headrace.ps.backup import BackupError, place_of

    settings, place = options.configured(file, data), place_of(where)
    chosen = name or next((one.name for one in reversed(kept(place))), "")
    if not chosen:
        raise BackupError(f"no whole copy at {where}")
    made = fetch(place, chosen, settings.stack.data_dir / "features")
    typer.echo(f"{settings.stack.data_dir / 'features'} is {made.name}: {made.sequence:,} events folded, {made.feature_set}")
