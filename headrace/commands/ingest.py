"""`headrace ingest`: a topic that others write becomes interactions, by a Flink job."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from headrace.commands import options

if TYPE_CHECKING:
    from headrace.config import Config
    from headrace.ingest import Looked
    from headrace.ingests import Definition


class ClockName(str, Enum):
    """Whose time the stack runs on."""

    now = "now"
    log = "log"


def command(
    topic: Annotated[str, typer.Option("--topic", help="A topic of headrace's own Kafka cluster.")],
    mapping: Annotated[Path | None, typer.Option("--mapping", help="MAPPING.toml, with [source]: its format, where to start.")] = None,
    guess: Annotated[str | None, typer.Option("--guess", metavar="FORMAT", help="Print a mapping proposed for TOPIC, read as this format:"
                                              " json, avro, debezium-json, debezium-avro; begin nothing.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the ingest; by default the topic's. Its job is ingest-NAME.")] = None,
    start: Annotated[str | None, typer.Option("--start", help="earliest, latest or a time of ISO 8601, when it was never read.")] = None,
    check: Annotated[int | None, typer.Option("--check", min=1, help="Read so many records, say what they become, send nothing.")] = None,
    report: Annotated[Path | None, typer.Option(help="With --check: write what is said as JSON.")] = None,
    clock: Annotated[ClockName, typer.Option(help="now: live; log: old events, to the topic's present end, then closed and stopped.")]
    = ClockName.now,
    force: Annotated[bool, typer.Option("--force", help="Begin although the first records do not fit the mapping.")] = False,
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Ingest TOPIC: its records, JSON, Avro or Debezium's, become impressions and actions as rows of a file do; each once (docs/ingest.md).

    First: headrace ingest --topic T --guess json > M.toml, then headrace ingest --topic T --mapping M.toml --check 1000
    """
    from headrace import ingest, ingests

    settings, console = options.configured(config, data), Console(soft_wrap=True)
    if guess is not None:
        ingest.find(settings, topic)
        print(ingest.guessed(settings, topic, guess), end="")
        return
    if mapping is None:
        raise ingests.IngestError("say which field is what, --mapping MAPPING.toml;"
                                  f" headrace ingest --topic {topic} --guess json proposes one")
    wanted = ingests.define(topic, mapping, name, start)
    ingest.find(settings, topic)
    found = ingest.look(settings, wanted, check or ingest.PEEKED)
    if check is not None:
        _checked(found, wanted, report, console)
        return
    wrong = ingest.fit(wanted, found)
    if wrong and not force:
        raise ingests.IngestError(f"{wrong} (--force begins all the same)")
    _begin(settings, wanted, clock, start is not None, console)


def _checked(found: Looked, wanted: Definition, report: Path | None, console: Console) -> None:
    """Exit code 1 when a record would be refused."""
    from headrace.commands.replay import audited
    from headrace.ingest import fit

    if report is not None:
        report.write_text(json.dumps({**asdict(found.audit), "aside": dict(found.aside)}, indent=2) + "\n")
    audited(found.audit, console, "records")
    if found.aside:
        told = ", ".join(f"{count:,} x {op}" for op, count in found.aside.most_common())
        console.print(f"left aside, by op: {told} (counting: {', '.join(wanted.source.ops)})", highlight=False)
    wrong = fit(wanted, found)
    if wrong:
        console.print(wrong, style="red", highlight=False, markup=False)
    if found.audit.rejected or wrong:
        console.print("a job refuses such records into dead-letters and goes on", highlight=False)
        raise typer.Exit(1)


def _begin(config: Config, wanted: Definition, clock: ClockName, started: bool, console: Console) -> None:
    from headrace import ingest, ingests, submission
    from headrace.flink_rest import FlinkRest
    from headrace.ingest_log import Log

    if wanted.job in FlinkRest(config.flink.url).running():
        raise ingests.IngestError(f"{wanted.job} runs already: `headrace jobs stop {wanted.job}` first, or choose another --name")
    stood = ingest.stands(config, wanted)
    if stood and started:
        raise ingests.IngestError(f"{wanted.name} has read {wanted.topic} before and goes on where it stood: leave --start out, or read"
                                  " anew under another --name")
    ingests.save(config, wanted)
    stood = ingest.begin(config, wanted)
    log = Log(config, wanted, clock.value)
    log.claim()
    said = ", ".join(f"{partition}:{offset}" for partition, offset in sorted(stood.items())[:8])
    console.print(f"{wanted.topic} from offsets {said}{', ...' if len(stood) > 8 else ''} on", highlight=False)
    for name, job in submission.submit(config, [wanted.job]).items():
        console.print(f"{name}: {job}", highlight=False)
    if clock is ClockName.log:
        with console.status(f"reading {wanted.topic}"):
            read = log.drain()
        console.print(f"{read:,} records read to the end; windows closed, {wanted.job} stopped", highlight=False)
    else:
        console.print(f"`headrace jobs` lists and stops it; what is refused: headrace dead-letters list --topic {wanted.topic}",
                      highlight=False)
