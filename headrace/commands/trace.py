"""`headrace trace`: one sample's way through every process, with times."""

from __future__ import annotations

import json
import re
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.commands.options import Data, File, Json, configured

if TYPE_CHECKING:
    from headrace.config import Config
    from headrace.trace_hops import Hop, How, Trace

WIDE = 1000


def command(
    event: Annotated[str, typer.Argument(metavar="ID", help="An event_id, or PARTITION:OFFSET of interactions.")],
    model: Annotated[str | None, typer.Option("--model", help="A trained model; by default the served one.")] = None,
    within: Annotated[int, typer.Option("--within", min=1, metavar="S", help="Look so many seconds back for an event_id, and as long after"
                                        " each hop for the next.")] = 600,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """Print one sample's way through each process with times: what every topic holds of it, what each hop took, what is missing and why.

    Of an action the exposure that it was attributed to is shown too, and its sample. Asks the running stack; nothing is changed.
    """
    from headrace.trace import trace
    from headrace.trace_topics import live_topics

    config = configured(file, data)
    how = how_of(config, model, within)
    with live_topics(config) as topics:
        found = trace(topics, wanted(event), how)
    if not found.whole and (why := _waits(config, found)):
        found.said.append(why)
    if as_json:
        typer.echo(json.dumps(told(found, how), indent=2))
    else:
        _show(found)


def _waits(config: Config, found: Trace) -> str:
    """That the event waits for the stack's clock, where it does."""
    from headrace.access import given
    from headrace.clock import EngineUnavailable, StackClock, waits

    try:
        with closing(StackClock(**given(config.engine), timeout_s=2.0)) as clock:
            return waits(clock.state(), int(found.event.get("ts_ms", 0)))
    except EngineUnavailable:
        return ""


def wanted(text: str) -> str | tuple[int, int]:
    """An event_id, or the place that is written PARTITION:OFFSET."""
    found = re.fullmatch(r"(\d{1,9}):(\d{1,18})", text)
    return (int(found[1]), int(found[2])) if found else text


def how_of(config: Config, model: str | None, within_s: int) -> How:
    """How the stack of `config` is configured. Raises ConfigError for a model that is not trained."""
    from headrace.config import ConfigError
    from headrace.trace_hops import How

    known = [one.name for one in config.trained]
    if model is not None and model not in known:
        raise ConfigError(f"model {model!r} is not trained here; trained are {', '.join(known)}")
    samples = config.samples
    return How(model or config.model.name, config.model.name, config.target_of(model), samples.strategy, samples.widest_ms,
               samples.out_of_orderness_ms, config.ps.publish_ms, 1000 * within_s, samples.targets)


def told(found: Trace, how: How) -> dict[str, Any]:
    """A trace as JSON; times in ms, `at_ms` as the broker's, `since_ms` from the event on, or from its arrival when it is of a log."""
    event = found.event
    return {"cause": {"partition": found.cause[0], "offset": found.cause[1]}, "model": how.model, "strategy": how.strategy,
            **{name: event.get(name) for name in ("event_id", "request_id", "user_id", "item_id", "action", "ts_ms")},
            "since": found.since, "base_ms": found.base_ms, "whole": found.whole, "said": found.said,
            "hops": [_row(hop, found) for hop in found.hops]}


def _row(hop: Hop, found: Trace) -> dict[str, Any]:
    seen = hop.seen
    return {"topic": hop.topic, "of": hop.of, "by": hop.by, "partition": seen and seen.partition, "offset": seen and seen.offset,
            "at_ms": seen and seen.at_ms, "since_ms": seen and seen.at_ms - found.base_ms, "took_ms": _took_ms(hop, found),
            "after": hop.after and f"{hop.after.topic} ({hop.after.of})", "note": hop.note}


def _took_ms(hop: Hop, found: Trace) -> int | None:
    """Of an arrival since its own event time, when that is the wall's."""
    if hop.topic == "interactions" and hop.seen and found.since == "event":
        return hop.seen.at_ms - int(hop.seen.record["ts_ms"])
    return hop.took_ms


def _show(found: Trace) -> None:
    from rich.console import Console
    from rich.table import Table

    event = found.event
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False)
    what = f"{event['event_id']}: {event['action']}" if event else "an event that cannot be read"
    whose = f" of item {event['item_id']} by user {event['user_id']}" if event and event["item_id"] else ""
    console.print(f"{what}{whose}, cause {found.cause[0]}:{found.cause[1]}")
    for sentence in found.said:
        console.print(sentence)
    shown = Table("topic", "of", "by", "place", f"since {found.since} ms", "took ms", "after", "note", box=None)
    for hop in found.hops:
        seen = hop.seen
        shown.add_row(hop.topic, hop.of, hop.by, f"{seen.partition}@{seen.offset}" if seen else "-",
                      f"{seen.at_ms - found.base_ms:,}" if seen else "-", _number(_took_ms(hop, found)),
                      f"{hop.after.topic} ({hop.after.of})" if hop.after else "", hop.note)
    console.print(shown)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
