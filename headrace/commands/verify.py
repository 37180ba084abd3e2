"""`headrace verify`: nothing is lost and nothing doubled, whatever dies (loop); nothing grows, however long it runs (soak); nor does the
parameter server lose a push that it has acknowledged (ps). Of the running stack: what is served is what is learnt (skew), and samples are
what a join of the log says (join)."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from headrace.commands.options import Data, Duplicate, File, Json, Late, OutOfOrder, configured

WIDE = 1000  # a pipe has no width: what reads it gets every cell whole
app = typer.Typer(no_args_is_help=True, help="Prove what the platform promises, on a stack of its own; skew and join: on the running one.")


class VerificationFailed(Exception):
    """What was counted does not agree with what was sent; the message names each account. The data folder is left to be looked at."""


@app.callback()
def verify() -> None:
    """Prove what the platform promises, on a stack of its own; skew and join: on the running one."""


@app.command()
def loop(
    kills: Annotated[int, typer.Option(min=0, help="Processes ended while the stream runs.")] = 30,
    seed: Annotated[int, typer.Option(help="Moments and victims.")] = 1,
    file: Annotated[Path | None, typer.Option("--file", help="The log; MovieLens 100K by default.")] = None,
    mapping: Annotated[Path | None, typer.Option("--mapping", help="MAPPING.toml of --file.")] = None,
    rate: Annotated[float, typer.Option(min=1, help="Rows sent a second at most.")] = 400.0,
    rows: Annotated[int, typer.Option(min=100, help="Rows sent at least.")] = 5000,
    only: Annotated[str, typer.Option(help="End these alone: features,flink-taskmanager,python-worker for instance.")] = "",
    late: Late = 0.0,
    duplicate: Duplicate = 0.0,
    out_of_order: OutOfOrder = 0.0,
    data: Annotated[Path, typer.Option("--data", help="Data folder of the stack; emptied first.")] = Path(".headrace/verify"),
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")] = None,
) -> None:
    """Stream a log through a stack while its processes are ended at random moments, then count everything from outside.

    With --late, --duplicate and --out-of-order such a share of its events goes so. Samples are joined again, as by `headrace verify join`.
    """
    from headrace import movielens
    from headrace.config import ConfigError
    from headrace.disorder import Shares
    from headrace.rows import load
    from headrace.schemas import mapping as mappings
    from headrace.verify.loop import Plan, run

    if (file is None) != (mapping is None):
        raise ConfigError("--file and --mapping go together")
    try:
        shares = Shares.of(late, duplicate, out_of_order)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if file is None or mapping is None:
        folder = data.resolve().parent / "data" / movielens.NAME
        file, _ = movielens.get(folder)
        mapping = folder / "mapping.toml"
    log = load(file, mappings.load(mapping))
    data = _new(data)
    console = Console(soft_wrap=True, highlight=False)
    plan = Plan(kills, seed, rate, min(rows, len(log)), [name for name in only.split(",") if name], shares)
    result = run(data, log, plan, console.print)
    if as_json is not None:
        as_json.write_text(json.dumps(result, indent=2) + "\n")
    _tell(console, result)
    wrong = _differing(result)
    if result["kills_done"] != kills:
        wrong.append(f"{result['kills_done']} of {kills} kills were done")
    if wrong:
        raise VerificationFailed("; ".join(wrong) + f" (data in {data})")


@app.command()
def soak(
    minutes: Annotated[float, typer.Option("--minutes", min=0.2, help="How long the stream lasts.")] = 60.0,
    rate: Annotated[float, typer.Option("--rate", min=10, help="Interactions a second, half of what two cores can do.")] = 2000.0,
    seed: Annotated[int, typer.Option(min=0, max=2000, help="Of the invented log.")] = 1,
    data: Annotated[Path, typer.Option("--data", help="Data folder of the stack; emptied first.")] = Path(".headrace/soak"),
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the result, with every look, to this file.")] = None,
) -> None:
    """Send a seeded log at a constant rate, look at latency, memory and disk every ten seconds, then count everything from outside.

    Fails when an account differs, or when in a run of ten minutes or more the last quarter is a fifth above the second.
    """
    from headrace.verify.soak import run

    data = _new(data)
    console = Console(width=None if sys.stdout.isatty() else WIDE, soft_wrap=True, highlight=False)
    result = run(data, seconds=60 * minutes, rate=rate, seed=seed, say=console.print)
    if as_json is not None:
        as_json.write_text(json.dumps(result, indent=2) + "\n")
    _tell_soak(console, result)
    wrong = _differing(result)
    for one in result["flatness"]:
        if one["flat"] is False:
            found, limit = _judged(one)
            wrong.append(f"{one['what']}: {one['why'] or f'{found} in the last quarter, at most {limit} would be flat'}")
    if wrong:
        raise VerificationFailed("; ".join(wrong) + f" (data in {data})")


@app.command()
def ps(
    kills: Annotated[int, typer.Option(min=0, help="Processes ended: owners, standbys, replicas, the broker, the trainer.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=65_535, help="Of what is pushed, moments and victims.")] = 1,
    rate: Annotated[float, typer.Option(min=1, help="Causes pushed a second at most.")] = 3000.0,
    control: Annotated[str, typer.Option(help="A trainer that is wrong, which must be found out: forgets, or skips.")] = "",
    data: Annotated[Path, typer.Option("--data", help="Data folder of the stack; emptied first.")] = Path(".headrace/verify-ps"),
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")] = None,
) -> None:
    """Push through shards with standbys while processes are ended at random moments, then count every key, at both members."""
    from headrace.config import ConfigError
    from headrace.verify.ps import run
    from headrace.verify.ps_trainer import FORGETS, SKIPS

    if control not in ("", FORGETS, SKIPS):
        raise ConfigError(f"--control is {FORGETS} or {SKIPS}")
    data = _new(data)
    console = Console(soft_wrap=True, highlight=False)
    result = run(data, kills=kills, seed=seed, rate=rate, control=control, say=console.print)
    if as_json is not None:
        as_json.write_text(json.dumps(result, indent=2) + "\n")
    _tell_recovery(console, result)
    console.print(_accounts(result))
    wrong = _differing(result)
    if result["kills_done"] != kills:
        wrong.append(f"{result['kills_done']} of {kills} kills were done")
    if wrong:
        raise VerificationFailed("; ".join(wrong) + f" (data in {data})")


def _new(data: Path) -> Path:
    """The folder for an own stack, emptied. Raises VerificationFailed when one runs there."""
    from headrace import state

    data = data.resolve()
    if state.read(data) is not None:
        raise VerificationFailed(f"a stack runs on {data} already: `headrace down --data {data}` stops it")
    shutil.rmtree(data, ignore_errors=True)
    return data


def _differing(result: dict[str, Any]) -> list[str]:
    return [f"{one['check']}: {one['found']}, expected {one['expected']}" for one in result["checks"] if not one["agree"]]


def _tell_recovery(console: Console, result: dict[str, Any]) -> None:
    back = Table("process", "kills", "median s", "worst s", title="back, and learning again where training passes through it",
                 title_justify="left")
    for name, row in result["recovery"].items():
        back.add_row(name, str(row["kills"]), *(f"{row[key]:.1f}" if row[key] is not None else "-" for key in ("median_s", "worst_s")))
    console.print(back)


def _tell(console: Console, result: dict[str, Any]) -> None:
    _tell_recovery(console, result)
    console.print(_accounts(result))
    dropped = ", ".join(f"{count:,} {name}" for name, count in result["dropped"].items())
    copies = ", ".join(f"{count:,} of {topic}" for topic, count in result["copies"].items())
    console.print(f"{result['kills_done']} kills, {result['rows']:,} rows in {result['seconds']:.0f} s; dropped as known: {dropped};"
                  f" further copies in the topics: {copies}")
    if disorder := ", ".join(f"{count:,} {name}" for name, count in result["disorder"].items() if count):
        console.print(f"sent in disorder: {disorder}")
    if joined := result["join"]:
        for sentence in (_sum(joined["sent"], joined["accounts"]), *joined["examples"]):
            console.print(sentence)


def _sum(sent: int, accounts: dict[str, int]) -> str:
    return f"{sent:,} interactions = " + " + ".join(f"{count:,} {name}" for name, count in accounts.items() if count)


def _tell_soak(console: Console, result: dict[str, Any]) -> None:
    nature = Table("what may grow by nature, or within a sum", "2nd quarter", "last", "grown an hour", title="not judged",
                   title_justify="left")
    for one in result["by_nature"]:
        nature.add_row(one["what"], *(_figure(one[name], one["unit"]) for name in ("second", "last", "growth_h")))
    console.print(nature)
    flat = Table("figure", "2nd quarter", "last", "judged", "at most", "", title="medians of quarters", title_justify="left")
    for one in result["flatness"]:
        said = {True: "flat", False: "[red]NOT FLAT[/red]", None: "not judged"}[one["flat"]] + (one["why"] and f": {one['why']}")
        flat.add_row(one["what"], *(_figure(one[name], one["unit"]) for name in ("second", "last")), *_judged(one), said)
    console.print(flat)
    console.print(_accounts(result))
    topics = ", ".join(f"{name} {size:,.0f}" for name, size in result["topic_bytes_an_interaction"].items() if size >= 1)
    console.print(f"{result['interactions']:,} interactions in {result['sent_s']:,.0f} s, {len(result['looks'])} looks,"
                  f" {len(result['looks_failed'])} failed; Kafka's bytes an interaction: {topics}")
    for sentence in result["looks_failed"][-3:]:
        console.print(f"a look failed at {sentence}")


def _judged(one: dict[str, Any]) -> tuple[str, str]:
    """(what was judged of a row of flatness, its limit): the last quarter's level, or the growth an hour."""
    name, unit = ("growth_h", f"{one['unit']}/h") if one["what"].endswith("growth") else ("last", one["unit"])
    return _figure(one[name], unit), _figure(one["limit"], unit)


def _accounts(result: dict[str, Any]) -> Table:
    account = Table("account", "found", "expected", "", title="counted from outside", title_justify="left")
    for one in result["checks"]:
        account.add_row(one["check"], f"{one['found']:,}", f"{one['expected']:,}", "agree" if one["agree"] else "[red]DIFFER[/red]")
    return account


def _figure(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.0f} {unit}"


@app.command()
def skew(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Exposures that are checked at most, served ones first.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which ones.")] = 0,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """Compute the features of exposures again, from the running stack's topics as of the place that each recorded: train and serve alike.

    Once by folding the log again, bit by bit, and of definitions once by DuckDB. Fails, naming each feature, when one differs.
    """
    from headrace.feature_set import feature_set_of
    from headrace.recompute.live import live_skew

    settings = configured(file, data)
    feature_set = feature_set_of(settings)
    with Console(stderr=True).status("the log is read") as status:
        report = live_skew(settings, feature_set, limit, seed, status.update)
    told = {"feature_set": report.feature_set, "events": report.events, "checked": dict(report.checked), "mismatches": report.mismatches,
            "folded_again": dict(report.folded_again), "duckdb": dict(report.duckdb), "examples": report.examples}
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        typer.echo(f"{report.feature_set}: {report.events:,} events folded again; checked: {report.checked.get('served', 0):,} served,"
                   f" {report.checked.get('frozen', 0):,} frozen by the features job; mismatches: {report.mismatches:,}")
    if report.mismatches:
        raise VerificationFailed("; ".join([*(f"{name}: {count:,} differ from the log folded again"
                                              for name, count in report.folded_again.most_common()),
                                            *(f"{name}: {count:,} differ from DuckDB's" for name, count in report.duckdb.most_common()),
                                            *report.examples]))


@app.command()
def join(
    restarted: Annotated[bool, typer.Option("--restarted", help="Jobs or processes were: copies of events in `enriched` may have come late"
                                                                " without a difference.")] = False,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """Join exposures with actions again by DuckDB, from the running stack's topics, and compare with `samples` row by row.

    Then say what became of every interaction: sampled, attributed, late, without exposure, a retry, refused. Fails, naming the first few
    causes, when a sample is missing, too much or different, or the accounts do not add up to what was sent. Strategy wait.
    """
    from headrace.recompute.live import live_join

    settings = configured(file, data)
    with Console(stderr=True).status("the log is read") as status:
        report = live_join(settings, restarted, status.update)
    if as_json:
        typer.echo(json.dumps(report.told(), indent=2))
    else:
        typer.echo(f"{report.checked:,} samples compared; mismatches: {report.mismatches:,}\n{_sum(report.sent, report.accounts)}")
    if report.mismatches:
        raise VerificationFailed("; ".join([*(f"{name}: {count:,}" for name, count in report.differing.items() if count),
                                            *([] if report.sent == report.accounted else [
                                                f"{report.sent:,} were sent, and {report.accounted:,} are accounted for"]),
                                            *report.examples]))
