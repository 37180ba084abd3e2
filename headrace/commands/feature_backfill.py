"""`headrace features backfill`: the past of new definitions, put into the running service; and what `list` shows of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headrace.commands import options
from headrace.commands.feature_quality import CALL_S, service
from headrace.commands.options import Data, File, Json
from headrace.commands.tables import print_table

if TYPE_CHECKING:
    from headrace.config import Config
    from headrace.feature_history import History
    from headrace.features.feature_set import FeatureSet

Features = Annotated[list[str], typer.Option("--feature", metavar="NAME", help="A definition; may stand several times. By default all that"
                                             " lack their past.")]


def backfill(
    features: Features = [],  # noqa: B006 (typer copies it)
    log: Annotated[Path | None, typer.Option("--file", metavar="LOG", help="A log that was never sent, instead of the topics: Parquet, CSV,"
                                             " JSON lines or Avro; all of it is the past.")] = None,
    mapping: Annotated[Path | None, typer.Option("--mapping", help="MAPPING.toml of LOG: which column is what.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Go on when the topics have lost events of the past.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Say what is to do, and change nothing.")] = False,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """Put the events before a definition began into its rows, each once, while the stream goes on: from the topics, or from LOG.

    Cut off, it is to be run again: it goes on where it was. Done, it says so.
    """
    from headrace.feature_backfill import FeatureBackfillError, to_do
    from headrace.feature_backfill import backfill as run
    from headrace.feature_set import feature_set_of

    if (log is None) != (mapping is None):
        raise FeatureBackfillError("--file LOG and --mapping MAPPING.toml stand together: a mapping says which column of the log is what"
                                   " (`headrace replay` takes the same)")
    settings = options.configured(file, data)
    feature_set = feature_set_of(settings)
    if not feature_set.definitions:
        raise FeatureBackfillError("there are no definitions: [features] definitions names their files (docs/definitions.md); the built-in"
                                   " features are always kept")
    with service(settings, feature_set) as client, Console(stderr=True, soft_wrap=True).status("the past is read") as status:
        history = _history(settings, log, mapping)
        if check:
            work = to_do(feature_set, client.backfills()["definitions"], history, features)
        else:
            work = run(client, feature_set, history, features, half_life_s=settings.features.half_life_s,
                       idle_s=settings.features.idle_s, partial=partial, tell=status.update)
        notes = client.backfills()["definitions"]
    _tell(feature_set, work, notes, history, check, as_json)


def _history(settings: Config, log: Path | None, mapping: Path | None) -> History:
    from headrace import rows as rows_of
    from headrace.feature_history import Log, Topics
    from headrace.schemas import mapping as mappings

    if log is None or mapping is None:
        return Topics(settings)
    rows = rows_of.load(log, mappings.load(mapping))
    return Log(rows, f"{log.name} ({rows.digest})", lambda: Topics(settings))


def _tell(feature_set: FeatureSet, work: list[Any], notes: dict[str, Any], history: History, check: bool, as_json: bool) -> None:
    chosen = [{"feature": feature_set.all[d].identity, "since": one.since, "events": one.events, "missing": one.missing}
              for one in work for d in one.definitions]
    if as_json:
        typer.echo(json.dumps({"source": history.source, "check": check, "chosen": chosen, "definitions": notes}, indent=2))
        return
    if not chosen:
        typer.echo("nothing is to be backfilled: " + "; ".join(
            f"{one.identity} {told_of(notes[one.identity])}" for one in feature_set.definitions))
        return
    print_table(["feature", "began at", "events", "missing"],
                [[one["feature"], *(f"{one[key]:,}" for key in ("since", "events", "missing"))] for one in chosen])
    if not check:
        typer.echo(f"{len(chosen)} definitions have the past of {history.source}: `headrace features list` shows it")
    elif any(one["missing"] for one in chosen):
        typer.echo(f"to be folded of {history.source}; what is missing is gone from the topics: --partial goes on without it")
    else:
        typer.echo(f"to be folded of {history.source}: nothing was changed")


def told_of(note: dict[str, Any] | None) -> str:
    """A cell: since when a definition is folded, and whether its past was put in."""
    from headrace.features.backfilled import whole_why

    if note is None:
        return "not kept yet"
    begun = note.get("backfill")
    since = "since ?" if note["since"] is None else f"since {note['since']:,}"
    if "gap" in note:
        return f"{since}, away from {note['gap'][0]:,} to {note['gap'][1]:,}"
    if begun:
        less = f", {begun['missing']:,} missing" if begun.get("missing") else ""
        how = "backfilled:" if begun["next"] == begun["parts"] else f"backfill begun ({begun['next']} of {begun['parts']} parts):"
        return f"{since}, {how} {begun['events']:,} events of {begun['source']}{less}"
    return f"{since}, lacks its past" if note["since"] and not whole_why(note) else since


def notes_of(settings: Config) -> dict[str, Any] | None:
    """What the running service tells of definitions; None when none runs."""
    from headrace.features.client import FeatureClient
    from headrace.rpc.errors import RpcError

    client = FeatureClient(settings.features.address, deadline_s=0.0, timeout_s=CALL_S)
    try:
        return dict(client.backfills()["definitions"])
    except RpcError:
        return None
    finally:
        client.close()
