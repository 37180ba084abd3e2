"""`headrace env`: what a shell needs to run Flink's own command line against the stack."""

from __future__ import annotations

import shlex

import typer

from headrace.commands.options import Data, File, configured


def command(data: Data = None, file: File = None) -> None:
    """Print export lines for Java, Flink's folders and its `flink` command: eval "$(headrace env)"."""
    from headrace import flink, java
    from headrace.state import read
    from headrace.submission import environment

    config = configured(file, data)
    held = java.inherited()
    made = environment(config)
    made["PATH"] = f"{flink.wheel() / 'bin'}:{made['PATH']}"
    if read(config.stack.data_dir) is not None:
        made["HEADRACE_STACK__DATA_DIR"] = str(config.stack.data_dir.resolve())
    for name, value in made.items():
        if held.get(name) != value:
            typer.echo(f"export {name}={shlex.quote(value)}")
