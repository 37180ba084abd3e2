"""`headrace backfill`: samples that shards lack, learnt from their topic or from a file."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from headrace.commands import options
from headrace.config import MODELS, Config, ConfigError, Model

app = typer.Typer(no_args_is_help=True, help="Learn what parameter shards lack, each cause once.")
Name = Annotated[str | None, typer.Option("--model", help="A trained model; by default the served one.")]
Output = Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")]
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.command()
def train(
    model: Name = None,
    since: Annotated[str | None, typer.Option(help="Samples appended from then on: 2026-01-31T12:00+00:00, or 30m, 2h, 1d ago.")] = None,
    output: Output = None,
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Read `samples` again and push what a shard lacks: after a shard came back older than it once was, or a job skipped some.

    What a shard has is dropped by its ring; what lies before its ring is counted as too old and left.
    """
    from headrace.backfill import from_samples

    settings = options.configured(config, data)
    wanted, since_ms = _model(settings, model), None if since is None else since_ms_of(since, datetime.now(timezone.utc))
    with Console(stderr=True, soft_wrap=True).status("samples are read") as status:
        report = from_samples(settings, wanted, since_ms, lambda at: status.update(f"{at.read:,} records"))
    _tell(report, output)


@app.command()
def file(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV, JSON lines (both gzip too) or an Avro container.")],
    mapping: Annotated[Path, typer.Option("--mapping", help="MAPPING.toml: which column is what.")],
    model: Name = None,
    output: Output = None,
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Learn the rows of FILE: a source of its own, with rings of its own. Its features are made from the file alone, the stack's stay."""
    from headrace import rows as rows_of
    from headrace.backfill import from_rows
    from headrace.schemas import mapping as mappings

    settings = options.configured(config, data)
    wanted, rows = _model(settings, model), rows_of.load(file, mappings.load(mapping))
    with Console(stderr=True, soft_wrap=True).status("rows are learnt") as status:
        report = from_rows(settings, wanted, rows, lambda at: status.update(f"{at.read:,} of {len(rows):,} rows"))
    _tell(report, output)


def since_ms_of(text: str, now: datetime) -> int:
    """Milliseconds since 1970 of an ISO 8601 time (without a zone: UTC) or of a span before `now`. Raises ConfigError."""
    try:
        if text[-1:] in _UNITS:
            then = now - timedelta(**{_UNITS[text[-1]]: float(text[:-1])})
        else:
            then = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(f"--since is {text!r}; write a time as 2026-01-31T12:00+00:00, or how long ago as 30m, 2h or 1d") from None
    return int((then if then.tzinfo else then.replace(tzinfo=timezone.utc)).timestamp() * 1000)


def _model(config: Config, name: str | None) -> Model:
    known = {model.name: model for model in config.trained}
    if name is not None and name not in known:
        more = f"; [models.{name}] in headrace.toml adds it" if name in MODELS else ""
        raise ConfigError(f"model {name!r} is not trained here; trained are {', '.join(known)}{more}")
    return known[name or config.model.name]


def _tell(report: Any, output: Path | None) -> None:
    if output is not None:
        output.write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    console = Console(soft_wrap=True)
    console.print(f"{report.model}: {report.read:,} records read, {report.samples:,} samples, {report.unreadable:,} unreadable")
    shown = Table("shard", "there", "missing", "applied", "too old", box=None)
    for index, tally in enumerate(report.shards):
        shown.add_row(str(index), *(f"{count:,}" for count in (tally.there, tally.missing, tally.applied, tally.too_old)))
    console.print(shown)
