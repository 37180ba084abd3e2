"""The command line: a table of commands, each imported only when it is called, and errors as sentences."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import typer

# name: (module:attribute, help). A Typer app becomes a group, a function a command.
COMMANDS = {
    "up": ("headrace.commands.stack:up", "Start the local stack and keep it alive until Ctrl-C."),
    "clock": ("headrace.commands.clock:command", "Show the stack's event time; take it from a log's to today."),
    "status": ("headrace.commands.stack:status", "Show the processes of the running stack."),
    "down": ("headrace.commands.stack:down", "Stop the running stack."),
    "url": ("headrace.commands.stack:url", "Print the address of a part of the stack."),
    "serve": ("headrace.commands.stack:serve", "Run one role in this process."),
    "jobs": ("headrace.commands.jobs:app", "Submit, list, stop and resume the Flink jobs."),
    "env": ("headrace.commands.env:command", "Print what a shell needs to run flink against the stack."),
    "dead-letters": ("headrace.commands.dead_letters:app", "List, show and send again what was refused."),
    "samples": ("headrace.commands.samples:app", "The sample library: list, show, export, count and compare what the lake holds."),
    "labels": ("headrace.commands.labels:app", "Labels by people: import, export, what to label next, how far they agree."),
    "trace": ("headrace.commands.trace:command", "One sample's way through every process, with times."),
    "replay": ("headrace.commands.replay:command", "Replay a log of interactions."),
    "ingest": ("headrace.commands.ingest:command", "Read a topic that others write: JSON, Avro, Debezium."),
    "features": ("headrace.commands.features:app", "Feature definitions: list, try on a log, see what the ranker sees."),
    "offline": ("headrace.commands.offline:command", "Learn a log in this process, without Kafka and Flink."),
    "backfill": ("headrace.commands.backfill:app", "Learn what parameter shards lack, from samples or a file."),
    "ps": ("headrace.commands.ps:app", "The parameter server: what it holds, another number of shards, copies."),
    "models": ("headrace.commands.models:app", "Published versions of the served model: publish, list, step back, pin, resume."),
    "emit": ("headrace.commands.emit:command", "Send a few interactions."),
    "data": ("headrace.commands.data:app", "What the stack holds: list, describe, lineage, compact, expire, erase; data sets."),
    "simulate": ("headrace.commands.simulate:command", "A seeded world of users: a log with its truth, or live requests."),
    "demo": ("headrace.commands.demo:command", "Show the whole loop."),
    "bench": ("headrace.commands.bench:command", "Measure."),
    "verify": ("headrace.commands.verify:app", "Prove that nothing is lost or doubled, whatever dies."),
    "doctor": ("headrace.commands.doctor:command", "Say what is here, what is not, and what to do."),
    "jars": ("headrace.commands.jars:app", "Fetch the stack's jars, or lock them anew."),
    "connect": ("headrace.commands.connect:app", "Try an existing Kafka, registry and Flink; write secrets for Flink's hosts."),
    "config": ("headrace.commands.config:app", "Show the configuration."),
    "keys": ("headrace.commands.keys:app", "API keys of the engine."),
    "version": ("headrace.commands.version:command", "Print the version."),
}
# Errors of what was asked for, against errors of the world (1).
ASKED = {"KeysError", "UnknownReason", "BadPlace", "BadAge", "ConfigError", "PortTaken", "UnknownPart", "UnknownRole", "UnknownAddress",
         "TopicMismatch", "ReshardError", "BackupError", "IngestError", "SourceError", "MappingError",
         "VersionUnknown", "VersionError", "NoSuchData", "NobodyNamed", "BadRange", "LabelError", "LakeAbsent", "NoSuchSample",
         "FeatureBackfillError"}


class CommandAbsent(Exception):
    """A command whose packages are not installed; the message says what to install."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 0, 2 (what was asked for is wrong) or 1 (the world is)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        _app(next((argument for argument in arguments if not argument.startswith("-")), ""))(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if debug or (error.name or "headrace").split(".")[0] == "headrace":
            raise
        typer.echo(f"error: {_needs(' '.join(arguments[:2]), error)}", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"error: {sentence(error)}", err=True)
        sys.exit(2 if type(error).__name__ in ASKED else 1)


def sentence(error: Exception) -> str:
    """What a person reads: our own exceptions speak for themselves, others are named too."""
    if type(error).__module__.startswith("headrace") or isinstance(error, OSError):
        return str(error)
    return f"{type(error).__name__}: {error} (unexpected; --debug shows where)"


def _app(called: str) -> typer.Typer:
    """All commands by name and help, `called` with its code."""
    app = typer.Typer(name="headrace", help="Streaming online learning for recommendation.", no_args_is_help=True, add_completion=False,
                      pretty_exceptions_enable=False)
    app.callback()(_global)
    for name, (where, text) in COMMANDS.items():
        made: Any = _load(name, where) if name == called else _named(name)
        if isinstance(made, typer.Typer):
            app.add_typer(made, name=name, help=text)
        else:
            app.command(name, help=made.__doc__ if name == called else text)(made)
    return app


def _global(debug: bool = typer.Option(False, "--debug", help="Show where an error came from.")) -> None:
    """Streaming online learning for recommendation."""


def _load(name: str, where: str) -> Any:
    module, attribute = where.split(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise CommandAbsent(f"`headrace {name}` is not built yet" if error.name == module else _needs(name, error)) from None


def _needs(called: str, error: ModuleNotFoundError) -> str:
    return f"`headrace {called}` needs the package {error.name}: run `make setup`, or pip install 'headrace[local]'"


def _named(name: str) -> Callable[[], None]:
    """Stands in a help page for a command that is not called."""

    def command() -> None:
        raise AssertionError(f"{name} was called and not loaded")

    return command
