"""`headrace simulate`: a seeded world of users and items, into files or in front of the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headrace.commands import options

FOLDER = Path(".headrace/world")


def command(
    scenario: Annotated[str, typer.Option(help="A bundled scenario (--list), or a TOML file.")] = "calm",
    users: Annotated[int | None, typer.Option(help="Users; by default the scenario's.")] = None,
    items: Annotated[int | None, typer.Option(help="Items alive at some time.")] = None,
    days: Annotated[int | None, typer.Option(help="Simulated days.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same world.")] = 0,
    to: Annotated[Path, typer.Option("--to", help="Folder for the files.")] = FOLDER,
    engine: Annotated[str | None, typer.Option(metavar="URL", help="Ask this engine and answer it, instead of writing files.")] = None,
    live: Annotated[bool, typer.Option("--live", help="The same with the configured engine, or the running stack's.")] = False,
    requests_max: Annotated[int, typer.Option(min=1, help="With an engine: end after so many requests of the world.")] = 2000,
    seconds_max: Annotated[float, typer.Option(min=0.1, help="With an engine: end after so many seconds.")] = 120.0,
    speed: Annotated[str, typer.Option(help="With an engine: max, or simulated time over the wall's: 1x, 60x.")] = "max",
    page: Annotated[float, typer.Option(min=0, max=1, help="With an engine: share of requests to a page of new items beside it.")] = 0.1,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the scenarios.")] = False,
    config: options.File = None,
    data: options.Data = None,
) -> None:
    """Simulate users with known click probabilities: write a log, its truth and materials, or ask the engine and report regret."""
    from headrace.api import EngineError
    from headrace.config import ConfigError
    from headrace.replay import Pace
    from headrace.simulator.live import EngineLost, Limits
    from headrace.simulator.scenario import ScenarioError, load, names
    from headrace.simulator.world import World

    console, errors = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    if listed:
        for name in names():
            console.print(f"{name}: {load(name).what}", highlight=False)
        return
    try:
        pace = Pace.of(speed)
        chosen = load(scenario).sized(users, items, days)
        if engine is not None or live:
            from headrace.access import given

            own = given(options.configured(config, data).engine)
            asked = own if engine is None else {**own, "url": engine}
            figures = ask(World(chosen, seed), asked, Limits(requests_max, seconds_max, pace.factor, page), errors)
        else:
            figures = write(World(chosen, seed), to)
    except (ScenarioError, ConfigError, EngineError, EngineLost, ValueError, OSError) as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    if report is not None:
        report.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    show(console, figures)
    if not (engine or live):
        console.print(f"headrace replay {to / 'log.parquet'} --mapping {to / 'mapping.toml'}", highlight=False)


def write(world: Any, folder: Path) -> dict[str, Any]:
    """The files of a world in `folder`, and their summary."""
    from headrace.simulator.files import write as files

    return files(world, folder)


def ask(world: Any, engine: dict[str, Any], limits: Any, errors: Console) -> dict[str, Any]:
    """Run the world against the engine that `engine` gives to Client; the report. Raises EngineLost, EngineError when it is not there."""
    import msgspec

    from headrace.api import Client, EngineError
    from headrace.simulator.live import Live, Server

    with Client(**engine, deadline_s=2.0) as client:
        client.recall(world.users.name(0))  # is it there, and the key good
    with Client(**engine) as client, errors.status("users ask the engine") as status:
        server = Server(lambda user, n, context: msgspec.to_builtins(client.recommend(user, n, context=context)),
                        lambda events: msgspec.to_builtins(client.emit(events)), (EngineError,))

        def moved(tally: Any) -> None:
            status.update(f"{tally.asked:,} requests answered, {tally.clicks:,} clicks, {tally.failures} failures")

        return Live(world, server, limits, moved=moved).run()


def show(console: Console, figures: dict[str, Any]) -> None:
    """The figures for people: the single ones, then the windows."""
    from rich.table import Table

    single = Table(show_header=False)
    for name, value in figures.items():
        if isinstance(value, dict) and name != "scenario":
            value = ", ".join(f"{part} {_text(one)}" for part, one in value.items())
        if not isinstance(value, dict | list):
            single.add_row(name, _text(value))
    console.print(single)
    rows = figures.get("windows") or figures.get("by_day") or []
    if rows:
        shown = Table(*rows[0])
        for row in rows:
            shown.add_row(*(_text(value) for value in row.values()))
        console.print(shown)


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
