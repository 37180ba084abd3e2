"""`headrace data erase`: one user or item, everywhere (docs/data.md)."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands import options

if TYPE_CHECKING:
    from headrace.erasure import Counts


class NobodyNamed(Exception):
    """Whom to erase was not said, or twice: --user ID or --item ID."""


def erase(
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="A user_id.")] = None,
    item: Annotated[str | None, typer.Option("--item", metavar="ID", help="An item_id.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only look what there is; exit code 1 when there is anything.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Erase; without it only what is there is said.")] = False,
    file: options.File = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Erase a user or an item: feature rows, parameter rows, vector, samples of the lake, dead letters. Then look for them again, and keep
    a record of it, with the id as a hash, in DATA_DIR/erasures. What only time removes (topics, old snapshots) is told by name."""
    from headrace import erasure

    if (user is None) == (item is None) or not (user or item):
        raise NobodyNamed("say whom: --user ID or --item ID, one of them")
    who = erasure.Somebody("user", user) if user else erasure.Somebody("item", item or "")
    config = options.configured(file, data)
    if check or not yes:
        found = erasure.scan(config, who)
        if as_json:
            typer.echo(json.dumps({"of": who.of, "sha256": who.hash, "found": found}, indent=2))
        else:
            _say("found", found)
        if not check:
            typer.echo("nothing was erased: say --yes", err=True)
            raise typer.Exit(2)
        raise typer.Exit(1 if erasure.left(found) else 0)
    record = erasure.erase(config, who, lambda step: typer.echo(f"... {step}", err=True))
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        _say("erased", record["removed"])
        _say("found after it", record["found_after"])
        for one in record["remains"]:
            typer.echo(f"remains: {one['what']}{_until(one['until_ms'])}: {one['why']}")
        typer.echo(f"record: {record['record']}")
    if erasure.left(record["found_after"]):
        typer.echo("error: something is there again: events of theirs were on their way through the jobs; run this once more", err=True)
        raise typer.Exit(1)


def _say(what: str, found: dict[str, Counts]) -> None:
    for place, parts in found.items():
        told = ", ".join(f"{part} {rows:,}" for part, rows in parts.items()) or "there is none"
        typer.echo(f"{what}: {place}: {told}")


def _until(ts_ms: int | None) -> str:
    return "" if ts_ms is None else f", until {datetime.fromtimestamp(ts_ms / 1000, timezone.utc):%Y-%m-%d %H:%M} UTC at the latest"
