"""`headrace replay`: a file of rows as a stream of interactions."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace.commands import options

if TYPE_CHECKING:
    from headrace.audit import Audit
    from headrace.config import Config
    from headrace.schemas.mapping import Mapping


class ClockName(str, Enum):
    """Whose time events carry."""

    log = "log"
    now = "now"


def command(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV, JSON lines (both gzip too) or an Avro container.")],
    mapping: Annotated[Path | None, typer.Option("--mapping", help="MAPPING.toml: which column is what.")] = None,
    guess: Annotated[bool, typer.Option("--guess", help="Print a mapping proposed for FILE, with reasons; send nothing.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Say what would be accepted and what rejected, and why; send nothing.")] = False,
    speed: Annotated[str, typer.Option(help="max, or the file's own speed times a number: 1x, 10x.")] = "max",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows in time order.")] = None,
    clock: Annotated[ClockName, typer.Option(help="log: the file's times; now: stamped when sent.")] = ClockName.log,
    shuffle_labels: Annotated[int | None, typer.Option(metavar="SEED", help="Permute the labels: a control, AUC 0.5.")] = None,
    late: options.Late = 0.0,
    duplicate: options.Duplicate = 0.0,
    out_of_order: options.OutOfOrder = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Which events these are.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="End when all is sent; do not wait for training.")] = False,
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Replay FILE: each row an impression, and a true label an action right after it; then wait until training has taken all of it.

    A file of your own: headrace replay FILE --guess > m.toml, then headrace replay FILE --mapping m.toml --check, then without --check.
    """
    from headrace import rows as rows_of
    from headrace.clock import ClockRefused, EngineUnavailable
    from headrace.config import ConfigError
    from headrace.disorder import Shares
    from headrace.drain import Stuck
    from headrace.guess import NoGuess
    from headrace.kafka import KafkaUnavailable, Undelivered
    from headrace.readers import ReadError
    from headrace.replay import Pace
    from headrace.replay_run import run
    from headrace.rpc.errors import RpcError
    from headrace.schemas import mapping as mappings
    from headrace.schemas.errors import RegistryUnavailable

    console, errors = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    try:
        if guess:
            print(_guessed(file), end="")
            return
        if mapping is None:
            raise mappings.MappingError(f"{file}: say which column is what, --mapping MAPPING.toml;"
                                        f" headrace replay {file} --guess > mapping.toml proposes one")
        if check:
            _checked(file, mappings.load(mapping), report, console, options.configured(config, data), clock)
            return
        pace, shares = Pace.of(speed), Shares.of(late, duplicate, out_of_order)
        settings = options.configured(config, data)
        rows = rows_of.load(file, mappings.load(mapping))
        if limit is not None:
            rows = rows.first(limit)
        if shuffle_labels is not None:
            rows = rows.shuffled(shuffle_labels)
        with Bars(errors, len(rows)) as bars:
            figures = run(settings, rows, str(file), clock=clock.value, pace=pace, wait=not no_wait, watch=bars.watch(),
                          shares=shares, seed=seed)
    except (ValueError, NoGuess, mappings.MappingError, ConfigError, ReadError, ClockRefused, EngineUnavailable, KafkaUnavailable,
            Undelivered, RegistryUnavailable, RpcError, Stuck) as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    if report is not None:
        report.write_text(json.dumps(figures, indent=2) + "\n")
    console.print(table(figures))
    if told := known_before(figures):
        console.print(told, highlight=False)
    if clock is ClockName.log:
        console.print("the stack's clock is this log's from now on: events that bring a ts_ms of today wait until `headrace clock now`,"
                      " which takes the stack to today for good", highlight=False)


def known_before(figures: dict[str, Any]) -> str:
    """That the stack had had interactions of the file before, "" when it had none or nobody waited to see."""
    sent = figures["interactions_sent"]
    known = sent - figures.get("interactions_decoded", sent) - figures.get("dead_letters", 0)
    if known <= 0:
        return ""
    if known < sent:
        return (f"{known:,} of these {sent:,} interactions had come before and were dropped; the others were folded: of each user the last"
                " 64 events are known again, and what lies further back is not")
    return (f"every one of these {sent:,} interactions had come before, and nothing is learnt twice: an event_id here is the file's sha256"
            " and the row, so this file changed nothing; a stack of its own (--data DIR) learns it anew")


def _guessed(file: Path) -> str:
    from headrace.guess import guess

    found, rows = guess(file)
    return found.text(str(file), rows)


def _checked(file: Path, mapping: Mapping, report: Path | None, console: Console, config: Config, clock: ClockName) -> None:
    """Exit code 1 when a row would be rejected, or the replay: by the clock of the stack, where one answers. Raises ClockRefused."""
    from dataclasses import asdict

    from headrace.access import given
    from headrace.audit import audit
    from headrace.clock import EngineUnavailable, StackClock, agree

    with console.status(f"{file}"):
        found = audit(file, mapping)
    if report is not None:
        report.write_text(json.dumps(asdict(found), indent=2) + "\n")
    audited(found, console, "rows")
    if found.rejected:
        console.print("a replay ends at the first row that it cannot read; mend the file, or map another column", highlight=False)
        raise typer.Exit(1)
    if found.first_ms is not None and found.last_ms is not None:
        with suppress(EngineUnavailable), closing(StackClock(**given(config.engine), timeout_s=2.0)) as asked:
            agree(asked.state(), clock.value, found.first_ms, found.last_ms, str(file))
            console.print(f"the stack at {config.engine.url} would take it with --clock {clock.value}", highlight=False)


def audited(found: Audit, console: Console, what: str) -> None:
    """The audit of `what` (rows, records), for people."""
    when = [f"{datetime.fromtimestamp(ms / 1000, timezone.utc):%Y-%m-%d %H:%M:%S}"
            for ms in (found.first_ms, found.last_ms) if ms is not None]
    share = f" ({found.positives / found.accepted:.1%})" if found.accepted else ""
    console.print(f"{found.rows:,} {what}: {found.accepted:,} accepted, {found.rejected:,} rejected; {found.positives:,} positives{share},"
                  f" {found.users:,} users, {found.items:,} items" + (f", {' to '.join(when)} UTC" if when else ""), highlight=False)
    for reason in found.reasons:
        console.print(f"{reason.count:,} x {reason.reason}", style="red", highlight=False, markup=False)
        for said in reason.first:
            console.print(f"  {said}", highlight=False, markup=False)
    for odd in found.odd:
        console.print(f"odd: {odd}", style="yellow", highlight=False, markup=False)


class Bars:
    """Two bars, shown from the first row sent on: rows sent, samples applied by the slowest shard."""

    def __init__(self, console: Console, rows: int) -> None:
        self._bars = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                              TimeElapsedColumn(), console=console)
        self._sent = self._bars.add_task("rows sent", total=rows, note="")
        self._applied = self._bars.add_task("samples applied", total=rows, note="", start=False)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bars.live.is_started:  # else it would print an empty line before a refusal
            self._bars.stop()

    def watch(self):
        """What replay_run.run tells."""
        from headrace.replay_run import Watch

        return Watch(self._on_sent, self._on_drained)

    def _on_sent(self, sent: Any) -> None:
        self._bars.start()  # not before: a refusal needs no bar
        self._bars.update(self._sent, completed=sent.rows, note=f"{sent.interactions / max(sent.seconds, 1e-9):,.0f} interactions/s")

    def _on_drained(self, sent: Any, at: Any) -> None:
        self._bars.start_task(self._applied)
        self._bars.update(self._applied, total=sent.impressions, completed=min(at.applied, default=0),
                          note=f"{at.samples:,} samples, {at.dead_letters:,} dead letters")


def table(figures: dict[str, Any]) -> Table:
    """The report without its windows, for people."""
    shown = Table(show_header=False)
    for name, value in figures.items():
        if name != "windows":
            shown.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    return shown
