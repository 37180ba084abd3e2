"""`headrace jars`: fetch what jars.lock names, or resolve jars.toml and write jars.lock anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Fetch the stack's jars, or lock them anew.")


@app.command()
def fetch(mirror: Annotated[str, typer.Option(envvar="HEADRACE_MAVEN_MIRROR", help="URL of a Maven repository to ask instead of the public"
                                                                                   " one.")] = "") -> None:
    """Download the jars that are missing, and check the bytes of all of them. Proxies are those of the environment."""
    from headrace import jars, java, maven

    where = jars.folder(java.inherited())
    wanted = jars.locked()
    absent = {jar.file for jar in jars.missing(where, wanted)}
    total = sum(jar.size_bytes for jar in wanted if jar.file in absent)
    if absent:
        typer.echo(f"{len(absent)} jars, {total / 1e6:.0f} MB, into {where}")
        with _bars() as bar:
            jars.fetch(where, wanted, maven.download(bar, mirror))
    typer.echo(f"jars: {len(wanted)} in {where}, bytes as locked")


@app.command()
def bundle(file: Annotated[Path, typer.Argument(help="The tar to write.")]) -> None:
    """Write all jars into one file, for `headrace jars install` where no Maven repository is reached."""
    from headrace import jar_bundle, jars, java

    wanted = jars.locked()
    size = jar_bundle.bundle(jars.folder(java.inherited()), wanted, file)
    typer.echo(f"{file}: {len(wanted)} jars, {size / 1e6:.0f} MB")


@app.command()
def install(file: Annotated[Path, typer.Argument(help="A tar that `headrace jars bundle` wrote.")]) -> None:
    """Take the jars that are missing out of FILE, and check the bytes of all of them. Nothing is downloaded."""
    from headrace import jar_bundle, jars, java

    where, wanted = jars.folder(java.inherited()), jars.locked()
    found = jar_bundle.install(file, where, wanted)
    typer.echo(f"{len(found)} jars from {file}; {len(wanted)} in {where}, bytes as locked")


@app.command()
def lock() -> None:
    """Resolve jars.toml and write jars.lock: for those who change versions."""
    from headrace import jars, maven

    found = maven.lock(jars.wanted(), jars.LOCK)
    typer.echo(f"{jars.LOCK}: {len(found)} jars, {sum(jar.size_bytes for jar in found) / 1e6:.0f} MB")


@contextmanager
def _bars() -> Iterator[Callable]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    with Progress(TextColumn("{task.description:<44}"), BarColumn(16), DownloadColumn()) as progress:

        @contextmanager
        def bar(file: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
            task = progress.add_task(file, total=size_bytes)
            yield lambda count: progress.advance(task, count)

        yield bar
