"""Options that several commands take, and the configuration that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace import java
from headrace.config import PREFIX, Config, load
from headrace.lake.place import Place, is_url
from headrace.rpc import access

File = Annotated[Path | None, typer.Option("--config", help="A headrace.toml; by default the one of this folder, when there is one.")]
Data = Annotated[Path | None, typer.Option("--data", help="Data folder of the stack (stack.data_dir).")]
Late = Annotated[float, typer.Option("--late", min=0, max=1, help="Share of events sent behind what the samples job waits for.")]
Duplicate = Annotated[float, typer.Option("--duplicate", min=0, max=1, help="Share of events sent twice, as by a client's retry.")]
OutOfOrder = Annotated[float, typer.Option("--out-of-order", min=0, max=1, help="Share of events sent behind newer ones, and in time.")]
Lake = Annotated[str | None, typer.Option("--lake", metavar="PLACE", help="The lake's folder, or s3://BUCKET/PREFIX; by default"
                                          " lake.dir.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


def lake_at(lake: str | None, file: Path | None, data: Path | None) -> Place:
    """The place of a lake that is named, by default the stack's; object stores as the configuration says. Raises ConfigError."""
    return Place(lake) if lake and not is_url(lake) else configured(file, data, running=False).lake_at(lake)


def configured(file: Path | None, data: Path | None, *, running: bool = True) -> Config:
    """The configuration under these options; `running`: with the addresses of the stack that runs. Raises ConfigError."""
    environ = java.inherited()
    if data is not None:
        environ[f"{PREFIX}STACK__DATA_DIR"] = str(data)
    config = load(file, environ=environ, stack=False)
    access.use(config.rpc.access)
    if running and (config.stack.data_dir / "stack.json").exists():
        from headrace import state  # the base install has no psutil to look with, and no stack either

        if state.read(config.stack.data_dir) is not None:  # a dead stack's addresses are removed by the look
            return load(file, environ=environ, stack=True)
    return config
