"""`headrace offline`: a log learnt in this process, for the figures that the stack must reach on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headrace.commands import options


def command(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV, JSON lines (both gzip too) or an Avro container.")],
    mapping: Annotated[Path, typer.Option("--mapping", help="MAPPING.toml: which column is what.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows in time order.")] = None,
    model: Annotated[str | None, typer.Option(help="fm or lr; by default model.name.")] = None,
    batch_rows: Annotated[int | None, typer.Option(min=1, help="Samples of a push; by default flink.train_batch_rows.")] = None,
    seed: Annotated[int, typer.Option(help="Where factors start; 0 as in the stack.")] = 0,
    shuffle_labels: Annotated[int | None, typer.Option(metavar="SEED", help="Permute the labels: a control, AUC 0.5.")] = None,
    frozen: Annotated[list[str], typer.Option(help="A feature that the model reads as its default, to see what it is worth; may stand"
                                              " several times.")] = [],  # noqa: B006 (typer copies it)
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Learn FILE row by row in time order, each scored before it is learnt, without Kafka and Flink; print what the model reaches."""
    from headrace import rows as rows_of
    from headrace.commands.replay import table
    from headrace.config import ConfigError
    from headrace.feature_set import feature_set_of, model_inputs
    from headrace.features.masks import maskable
    from headrace.models.catalog import MODELS
    from headrace.offline import run
    from headrace.readers import ReadError
    from headrace.schemas import mapping as mappings

    console, errors = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    try:
        settings = options.configured(config, data, running=False)
        if model is not None and model not in MODELS:
            raise ConfigError(f"unknown model {model!r}; known: {', '.join(MODELS)}")
        rows = rows_of.load(file, mappings.load(mapping))
        feature_set = feature_set_of(settings)
        model_inputs(settings)
        if unknown := sorted({*frozen} - {*maskable(feature_set)}):
            raise ConfigError(f"{unknown[0]!r} is no feature that can be frozen; there are {', '.join(maskable(feature_set))}")
    except (ValueError, mappings.MappingError, ConfigError, ReadError) as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    rows = rows if limit is None else rows.first(limit)
    rows = rows if shuffle_labels is None else rows.shuffled(shuffle_labels)
    chosen = settings.model.model_copy(update={"name": model} if model else {})
    with errors.status("kernels are compiled") as status:
        figures = run(rows, chosen, batch_rows or settings.flink.train_batch_rows, seed, half_life_s=settings.features.half_life_s,
                      idle_s=settings.features.idle_s,
                      feature_set=feature_set, masked=tuple(frozen),
                      moved=lambda done: status.update(f"{done:,} of {len(rows):,} rows"))
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n")
    console.print(table(figures))
