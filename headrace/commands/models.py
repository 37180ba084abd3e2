"""`headrace models`: published versions of the served model, and which of them serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.commands import options
from headrace.config import Config, ConfigError, Model

if TYPE_CHECKING:
    from headrace.versions import Versions

app = typer.Typer(no_args_is_help=True, help="Versions of the served model: publish, list, serve another, leave it to the guard.")
Name = Annotated[str, typer.Option("--model", help="A trained model; by default the served one.")]
Which = Annotated[str, typer.Argument(help="A version's number, or live.")]
Note = Annotated[str, typer.Option("--note", help="For people: why.")]
CALL_S, LOAD_S = 5.0, 600.0
EVENTS = 12
MIB = 1 << 20
LIVE = "live"


class StackAway(Exception):
    """What is needed of the stack does not answer; the message says what, and how to start it."""


@app.command()
def publish(name: Name = "", note: Note = "", config: options.File = None, data: options.Data = None) -> None:
    """Write what the training shards hold now as the next version. Nothing else is served by that: `headrace models rollback N` does it."""
    from headrace.models.progressive import MODEL, keys_of, summary
    from headrace.ps.client import ParameterClient
    from headrace.rpc.client import Client
    from headrace.rpc.errors import Unavailable
    from headrace.versions import PERSON

    settings = options.configured(config, data)
    model = _model(settings, name)
    shards = [Client(address, LOAD_S) for address in settings.ps.addresses]
    parameters = ParameterClient(settings.ps.addresses, CALL_S)
    try:
        with _versions(settings, model, LOAD_S) as versions:
            figures = {key: value for key, value in summary(parameters.pull(model.name, "metrics", keys_of(MODEL))[0][:, 0]).items()
                       if value is not None}
            made = versions.publish(shards, PERSON, note, figures)
    except Unavailable as error:
        raise StackAway(f"nothing was published: {error}; a version is made from the training shards, `headrace up` starts them") from None
    finally:
        parameters.close()
        for shard in shards:
            shard.close()
    typer.echo(f"version {made.number} of {model.name}: {sum(made.rows.values()):,} rows, {made.bytes / MIB:,.1f} MiB, in"
               f" {versions.root / str(made.number)}")


@app.command("list")
def listed(name: Name = "", config: options.File = None, data: options.Data = None, as_json: options.Json = False) -> None:
    """The versions that there are, which one serves and why, what each replica says, and the last events."""
    from headrace.versions import told

    settings = options.configured(config, data)
    model = _model(settings, name)
    with _versions(settings, model, CALL_S) as versions:
        found = _found(versions)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    _table(found)
    typer.echo(told(versions.folder, model.name))
    for address, said in found["replicas"].items():
        serves = "does not answer" if said["version"] is None else f"serves {_name(said['version'])}"
        typer.echo(f"replica {address} {serves}{': ' + said['trouble'] if said['trouble'] else ''}")
    for event in found["events"]:
        typer.echo(f"{_time(event['at_ms'])}  {event['event']:<10} {_name(event['version']):<12} by {event['by']}: {event['reason']}")


@app.command()
def rollback(which: Annotated[str, typer.Argument(help="A version's number, or live; by default the newest before the one served.")] = "",
             note: Note = "", config: options.File = None, data: options.Data = None) -> None:
    """Serve a version, or live, on all replicas or none. A guard that runs may go on from there; `pin` holds it."""
    _serve(which, note or "rollback", False, config, data)


@app.command()
def pin(which: Which, note: Note = "", config: options.File = None, data: options.Data = None) -> None:
    """Serve a version, or live, and have no guard change it until `headrace models resume`."""
    _serve(which, note or "pin", True, config, data)


@app.command()
def resume(note: Note = "", config: options.File = None, data: options.Data = None) -> None:
    """Give the decision back to the guard, which takes what it sees from here on for normal. Until it decides, the same is served."""
    from headrace.versions import PERSON, named

    settings = options.configured(config, data)
    with _versions(settings, settings.model, CALL_S) as versions:
        choice = versions.resume(PERSON, note or "resume")
    typer.echo(f"{named(choice.version)} of {settings.model.name} is served, and the guard decides")
    if not (settings.watch.enabled and settings.versions.guard):
        typer.echo("no guard runs here, so it stays: watch.enabled and versions.guard start one; `headrace models rollback live` serves"
                   " live", err=True)


def _serve(which: str, reason: str, pinned: bool, config: Any, data: Any) -> None:
    from headrace.rpc.errors import Unavailable
    from headrace.versions import PERSON, named

    settings = options.configured(config, data)
    with _versions(settings, settings.model, LOAD_S) as versions:
        try:
            done = versions.serve(_number(which) if which else versions.back(), PERSON, reason, pinned)
        except Unavailable as error:
            raise StackAway(f"nothing has changed: {error}; `headrace status` shows what runs") from None
    held = ", pinned" if pinned else ""
    typer.echo(f"{named(done.choice.version)} of {settings.model.name} is served{held} (before: {named(done.before)})")
    for address in done.absent:
        typer.echo(f"the replica {address} does not answer: it serves that when it comes back", err=True)


def _number(which: str) -> int:
    from headrace.versions import VersionUnknown

    if which == LIVE:
        return 0
    if not which.isdigit():
        raise VersionUnknown(f"{which!r} is no version: write its number, as `headrace models list` shows it, or live")
    return int(which)


@contextmanager
def _versions(config: Config, model: Model, timeout_s: float) -> Iterator[Versions]:
    from headrace.roles.ps import now_ms
    from headrace.rpc.client import Client
    from headrace.serve import specs
    from headrace.versions import Versions as Made

    replicas = [Client(address, timeout_s) for address in config.replica.addresses] if model.name == config.model.name else []
    try:
        yield Made(config.stack.data_dir / "versions", specs([model])[0], replicas, now_ms)
    finally:
        for client in replicas:
            client.close()


def _model(config: Config, name: str) -> Model:
    if not name:
        return config.model
    found = next((model for model in config.trained if model.name == name), None)
    if found is None:
        raise ConfigError(f"no model {name!r} is trained; trained are {', '.join(model.name for model in config.trained)}")
    return found


def _found(versions: Versions) -> dict[str, Any]:
    """What `list` shows, as JSON."""
    from dataclasses import asdict

    from headrace.ps.versions import VersionError

    there, broken = versions.there()
    try:
        choice: dict[str, Any] = asdict(versions.choice())
    except VersionError as error:
        choice = {"version": None, "reason": str(error)}
    try:
        proved = json.loads((versions.root / "guard.json").read_text())["good"]
    except (OSError, ValueError, KeyError):
        proved = {}
    rows = [{"version": one.number, "created_ms": one.created_ms, "by": one.by, "note": one.note, "rows": one.rows, "bytes": one.bytes,
             "sequence": max(one.sequence), "metrics": one.metrics, "state": {True: "good", False: "doubtful", None: ""}[
                 proved.get(str(one.number))]} for one in there]
    return {"model": versions.spec.model, "serving": choice, "versions": rows, "broken": {str(k): v for k, v in broken.items()},
            "replicas": versions.served(), "events": versions.events(EVENTS)}


def _table(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("version", "made", "by", "rows", "MiB", "sequence", "state", "metrics then", "note", box=None)
    for row in found["versions"]:
        state = ", ".join(filter(None, ["serves" if row["version"] == found["serving"]["version"] else "", row["state"]]))
        metrics = ", ".join(f"{key} {value:.4g}" for key, value in row["metrics"].items()
                            if key in ("auc", "logloss", "samples", "logloss.live", "entropy.live", "calibration.live"))
        shown.add_row(str(row["version"]), _time(row["created_ms"]), row["by"], f"{sum(row['rows'].values()):,}",
                      f"{row['bytes'] / MIB:,.1f}", f"{row['sequence']:,}", state, metrics, row["note"])
    Console(width=200, soft_wrap=True).print(shown if found["versions"] else "no version was published yet: `headrace models publish`")
    for why in found["broken"].values():
        typer.echo(why, err=True)


def _name(version: int) -> str:
    from headrace.versions import named

    return named(version)


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
