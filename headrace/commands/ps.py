"""`headrace ps`: the parameter server of the configured stack."""

from __future__ import annotations

import json
import shutil
import time
from datetime import datetime, timezone
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from headrace.commands import options
from headrace.config import Config, ConfigError

app = typer.Typer(no_args_is_help=True, help="The parameter server: what each shard and replica holds; another number of shards; copies.")
ASK_S = 5.0
MIB = 1 << 20
WIDTH = 160
SNAPSHOT_S = 600.0


@app.command()
def stats(
    config: options.File = None,
    data: options.Data = None,
    as_json: options.Json = False,
    digests: Annotated[bool, typer.Option("--digests", help="Compare the rows of every replica with those that training serves.")] = False,
) -> None:
    """Rows, bytes, load, who waits and who went, by table of each shard and replica; pushes, log and ages by shard. Ends with 1 when one of
    them does not answer, and says which; with --digests also when a replica's rows differ from the training shards' and nothing changes."""
    settings = options.configured(config, data)
    found, silent = ask(settings)
    rows = _compared(settings, silent) if digests else None
    if as_json:
        typer.echo(json.dumps({"processes": found, "silent": silent} | ({} if rows is None else {"digests": rows}), indent=2))
    else:
        _show(found)
        _show_digests(rows or [])
    for name, why in silent.items():
        typer.echo(f"error: {name} does not answer: {why}; `headrace status` shows whether it runs", err=True)
    if silent or any(row["differing"] and row["still"] for row in rows or []):
        raise typer.Exit(1)


@app.command()
def reshard(
    shards: Annotated[int, typer.Option(help="How many there are to be.")],
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Make the folders of the shards into those of another number of them. Stop training and the shards before; replicas may serve on.

    The old folders stay beside the new ones, as ps.before-N-shards.
    """
    from headrace.ps.reshard import ReshardError
    from headrace.ps.reshard import reshard as make
    from headrace.roles.ps import now_ms

    settings = options.configured(config, data)
    folder = settings.stack.data_dir / "ps"
    target = folder.with_name("ps.being-made")
    shutil.rmtree(target, ignore_errors=True)  # of an attempt that was ended
    try:
        made = make(folder, target, shards, settings.ps.rows_max, settings.ps.ring_length, now_ms)
    except BlockingIOError:
        raise ReshardError(f"a shard in {folder} runs: stop training and the shards first (headrace jobs stop, headrace down)") from None
    number = len([path for path in folder.iterdir() if path.name.isdigit()])
    kept = folder.with_name(f"ps.before-{number}-shards")
    if kept.exists():
        kept = folder.with_name(f"{kept.name}-{int(time.time())}")
    folder.rename(kept)
    target.rename(folder)
    each = ", ".join(f"{rows:,}" for rows in made.rows)
    typer.echo(f"{sum(made.rows):,} rows on {shards} shards ({each}), at sequence {made.sequence:,}; the old folders are {kept}")
    if len(settings.ps.addresses) != shards:
        typer.echo(f"now give {shards} addresses in ps.addresses and ps.http_ports (there are {len(settings.ps.addresses)}), to every"
                   " process", err=True)


@app.command()
def promote(
    shard: Annotated[int, typer.Argument(help="Number of the shard, from 0.")],
    member: Annotated[str, typer.Option(help="first or standby; by default the one that does not own it.")] = "",
    lose: Annotated[bool, typer.Option("--lose", help="Though it may lack pushes that were acknowledged.")] = False,
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Have a shard's other member own it: for a move, or when the owner is lost for good. It takes over when the owner is silent or has
    stepped back, which takes a few times ps.takeover_s."""
    from headrace.owners_log import KafkaOwnersLog
    from headrace.ps.owners import Owner, Owners

    settings = options.configured(config, data)
    shards = len(settings.ps.addresses)
    if not settings.ps.standbys:
        raise ConfigError("ps.standbys names no standby: there is nobody to promote")
    if not 0 <= shard < shards or member not in ("", "first", "standby"):
        raise ConfigError(f"there are shards 0 to {shards - 1}, and a shard has the members first and standby")
    log = KafkaOwnersLog(settings)
    owners = Owners(log, f"{shard}/{shards}")
    try:
        state = owners.now()
        if state is None:
            raise ConfigError(f"nobody has ever owned shard {shard} of {shards}: start its members")
        names = {"first": str(shard), "standby": f"{shard}-standby"}
        chosen = names[member] if member else next(name for name in names.values() if name != state.member)
        if chosen == state.member:
            typer.echo(f"{chosen} owns shard {shard} already")
            return
        if not state.in_sync and not lose:
            raise ConfigError(f"{chosen} may lack pushes that {state.member} has acknowledged; --lose promotes it all the same (then"
                              " `headrace backfill train` brings what is missing)")
        taken = owners.say(Owner(state.epoch + 1, chosen, False, forced=True))
    finally:
        log.close()
    typer.echo(f"{chosen} is to own shard {shard}" if taken else "another claim came first: look again with `headrace ps stats`")


@app.command()
def backup(
    to: Annotated[str, typer.Argument(help="A folder, s3://bucket/path?region=..., gs://bucket/path: what Arrow's file systems know.")],
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Copy each shard's newest snapshot to a folder or an object store, whether it runs or not; a shard that runs makes one first."""
    from headrace.ps.backup import backup as copy
    from headrace.ps.backup import place_of
    from headrace.rpc.client import Client
    from headrace.rpc.errors import Unavailable

    settings, place = options.configured(config, data), place_of(to)
    for address in settings.ps.reachable:
        client = Client(address, SNAPSHOT_S)
        try:
            client.call("snapshot")
        except Unavailable:
            typer.echo(f"{address} does not answer: its newest snapshot is copied", err=True)
        finally:
            client.close()
    made = copy(settings.stack.data_dir / "ps", place, datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ"))
    typer.echo(f"{made.name}: {len(made.sequences)} shards at sequences {', '.join(f'{one:,}' for one in made.sequences)},"
               f" {made.bytes / MIB:,.1f} MiB")


@app.command()
def backups(where: Annotated[str, typer.Argument(help="Where `backup` copied to.")], as_json: options.Json = False) -> None:
    """The whole copies at a place, oldest first."""
    from headrace.ps.backup import kept, place_of

    found = kept(place_of(where))
    if as_json:
        typer.echo(json.dumps([one._asdict() for one in found], indent=2))
    for one in [] if as_json else found:
        typer.echo(f"{one.name}  {one.bytes / MIB:>10,.1f} MiB  sequences {', '.join(f'{each:,}' for each in one.sequences)}")


@app.command()
def restore(
    where: Annotated[str, typer.Argument(help="Where `backup` copied to.")],
    name: Annotated[str, typer.Option(help="Of the copy; by default the newest.")] = "",
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Make the shards' folder, empty or away, from a copy. What was learnt since is in `samples`: `headrace backfill train`."""
    from headrace.ps.backup import BackupError, kept, place_of
    from headrace.ps.backup import restore as fetch

    settings, place = options.configured(config, data), place_of(where)
    chosen = name or next((one.name for one in reversed(kept(place))), "")
    if not chosen:
        raise BackupError(f"no whole copy at {where}")
    made = fetch(place, chosen, settings.stack.data_dir / "ps", lambda text: typer.echo(text, err=True))
    typer.echo(f"{made.name}: {len(made.sequences)} shards, {made.bytes / MIB:,.1f} MiB; start them, then `headrace backfill train`")
    if len(made.sequences) != len(settings.ps.addresses):
        wanted = len(settings.ps.addresses)
        typer.echo(f"ps.addresses has {wanted}: `headrace ps reshard --shards {wanted}` first", err=True)


def ask(config: Config) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """({process: what its verb `stats` answers}, {process: why it did not})."""
    from headrace.rpc.client import Client
    from headrace.rpc.errors import RpcError

    found: dict[str, dict[str, Any]] = {}
    silent: dict[str, str] = {}
    processes = {f"ps-{i}": address for i, address in enumerate(config.ps.addresses)}
    processes |= {f"ps-{i}-standby": address for i, address in enumerate(config.ps.standbys)}
    for name, address in {**processes, **dict(zip(config.replica.names, config.replica.addresses, strict=True))}.items():
        client = Client(address, ASK_S)
        try:
            found[name] = client.call("stats")[0]
        except RpcError as error:
            silent[name] = str(error)
        finally:
            client.close()
    return found, silent


def _compared(config: Config, silent: dict[str, str]) -> list[dict[str, Any]]:
    """Of all processes; none while one is silent."""
    from headrace.digests import digests
    from headrace.rpc.errors import RpcError

    if silent:
        return []
    try:
        return digests(config, ASK_S)
    except RpcError as error:
        silent["digest"] = str(error)
        return []


def _show_digests(rows: list[dict[str, Any]]) -> None:
    if rows:
        shown = Table("process", "table", "rows", "digest", "", box=None)
        for row in rows:
            said = "" if row["process"] == "training" else f"differs in {row['differing']} slots" if row["differing"] else "agrees"
            shown.add_row(row["process"], f"{row['model']}/{row['table']}", f"{row['rows']:,}", row["digest"],
                          said if row["still"] else f"{said} (it changes)".lstrip())
        Console(width=WIDTH).print(shown)


def _show(found: dict[str, dict[str, Any]]) -> None:
    console = Console(width=WIDTH)  # a terminal folds lines by itself; a table folds its cells
    tables = Table("process", "table", "rows", "MiB", "of", "load", "waiting", "let in", "kept out", "went", box=None)
    for name, stats in found.items():
        for model, of_model in stats["models"].items():
            for table, held in of_model["tables"].items():
                tables.add_row(name, f"{model}/{table}", f"{held['rows']:,}", f"{held['bytes'] / MIB:,.1f}",
                               f"{held['bytes_max'] / MIB:,.0f}" if held.get("bytes_max") else "", f"{held['load']:.2f}",
                               *(f"{held[key]:,}" if held.get(key) else "" for key in ("waiting", "admitted", "kept_out", "removed")))
    console.print(tables)
    shards = Table("process", "sequence", "pushes", "duplicates", "recuts", "refused", "expired", "crowded out", "log MiB", "snapshot",
                   "sequence behind", box=None)
    for name, stats in found.items():
        if "pushes" in stats:
            shards.add_row(name, *(f"{stats[key]:,}" for key in ("sequence", "pushes", "duplicates", "recuts", "refused")),
                           *(f"{stats['removed'][why]:,}" for why in ("ttl", "lru")), f"{stats['log_bytes'] / MIB:,.1f}",
                           f"{stats['snapshot_age_s']:.0f} s old" if stats["snapshot_age_s"] >= 0 else "none yet",
                           f"{stats['unsnapshotted']:,}")
    console.print(shards)
    for name, stats in found.items():
        if "folded" in stats:
            ages = ", ".join(f"{model} at sequence {one['sequence']:,}, {one['age_ms']} ms old" for model, one in stats["models"].items())
            counts = ", ".join(f"{stats[key]:,} {key}" for key in ("folded", "older", "gaps", "deleted"))
            first, stop = stats["slots"]
            console.print(f"{name}: slots {first} to {stop - 1}; {ages}; blocks {counts}; {len(stats['open_gaps'])} gaps open")
