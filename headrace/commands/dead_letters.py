"""`headrace dead-letters`: what was refused, why, and what to do; sent again when its cause is mended."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.commands.options import Data, File, Json, configured

if TYPE_CHECKING:
    from headrace.dead_letters import Letter, Live, Place

app = typer.Typer(no_args_is_help=True, help="List, show and send again what was refused (docs/dead-letters.md).")
FOREIGN_BYTES = 2000
AGE = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
Reason = Annotated[str | None, typer.Option("--reason", help="Only this reason code.")]
Topic = Annotated[str | None, typer.Option("--topic", help="Only of this topic.")]
Since = Annotated[str | None, typer.Option("--since", help="Only refused within this time: 30s, 10m, 2h, 7d.")]


class UnknownReason(Exception):
    """--reason names no code of schemas/reasons.py."""


class BadPlace(Exception):
    """What `show` was given is no place of a record."""


class BadAge(Exception):
    """--since is no time."""


@app.command("list")
def list_(reason: Reason = None, since: Since = None, topic: Topic = None, as_json: Json = False, file: File = None,
          data: Data = None) -> None:
    """Count refused records by reason: how many, the first and the last, an example, what to do."""
    from headrace.dead_letters import chosen, counts, live
    from headrace.schemas.reasons import REASONS

    _known(reason)
    since_ms = None if since is None else int(time.time() * 1000) - _age_ms(since)
    with live(configured(file, data)) as log:
        found = counts(chosen(log.read_letters(since_ms), reason, topic))
    if as_json:
        rows = [{**vars(one), "what": REASONS[one.reason].what if one.reason in REASONS else "",
                 "resend": one.reason in REASONS and REASONS[one.reason].resend} for one in found]
        typer.echo(json.dumps(rows, indent=2))
        return
    if not found:
        typer.echo("no dead letters")
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table("reason", "records", "first", "last", "example", "next")
    for one in found:
        then = REASONS[one.reason].then if one.reason in REASONS else "not one of ours: look at who else writes to dead-letters"
        shown.add_row(one.reason, f"{one.records:,}", _when(one.first_ms), _when(one.last_ms), one.example, then)
    Console(width=None if sys.stdout.isatty() else 1000).print(shown)
    typer.echo("`headrace dead-letters show EXAMPLE` shows one")


@app.command()
def show(place: Annotated[list[str], typer.Argument(help="PARTITION:OFFSET of interactions, or TOPIC PARTITION OFFSET.")],
         file: File = None, data: Data = None) -> None:
    """Show one refused record: its reasons, the original as far as it can be read, and the table's advice."""
    from headrace.dead_letters import live, place_of

    at = _place(place)
    with live(configured(file, data)) as log:
        letters = [letter for letter in log.read_letters() if place_of(letter) == at]
        if not letters:
            typer.echo(f"error: no dead letter is of {_named(at)}; `headrace dead-letters list` gives examples", err=True)
            raise typer.Exit(1)
        for line in [*_said(letters), *_original(log, at, letters[0])]:
            typer.echo(line)


@app.command()
def resend(
    reason: Reason = None,
    topic: Topic = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Reasons too that the table says never to resend.")] = False,
    file: File = None,
    data: Data = None,
) -> None:
    """Send originals again as new events with their old event_id; what was sent again once is not a second time."""
    from headrace.dead_letters import live
    from headrace.dead_letters import resend as again

    _known(reason)
    with live(configured(file, data)) as log:
        done = again(log, None if reason is None else [reason], topic=topic, limit=limit, force=force, dry_run=dry_run)
    typer.echo(f"{'would be sent' if dry_run else 'sent'} again: {done.sent:,}")
    if done.sent:
        typer.echo("each keeps its event_id and event time: it is folded into features, and learnt only if its window is still open")
    for count, what in ((done.before, "sent again before"), (done.gone, "no longer in their topic"), (done.nowhere, "of an unknown place"),
                        (done.foreign, "of a topic that others write: send them there yourself, mended")):
        if count:
            typer.echo(f"left out, {what}: {count:,}")
    for code, count in done.refused.most_common():
        typer.echo(f"left out, {code} cannot get better by itself (--force sends it anyway): {count:,}")


def _known(reason: str | None) -> None:
    from headrace.schemas.reasons import REASONS

    if reason is not None and reason not in REASONS:
        import difflib

        near = difflib.get_close_matches(reason, REASONS, 1, 0)
        raise UnknownReason(f"{reason!r} is no reason; the nearest is {near[0]!r}; docs/dead-letters.md has all")


def _age_ms(text: str) -> int:
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if not found:
        raise BadAge(f"--since {text!r} is no time: write 30s, 10m, 2h or 7d")
    return int(found[1]) * AGE[found[2]] * 1000


def _place(words: list[str]) -> Place:
    text = " ".join(words)
    found = re.fullmatch(r"(?:(\S+) (\d+) (\d+)|(\d+):(\d+))", text)
    if not found:
        raise BadPlace(f"{text!r} is no place: write PARTITION:OFFSET of interactions, or TOPIC PARTITION OFFSET")
    return found[1] or "interactions", int(found[2] or found[4]), int(found[3] or found[5])


def _named(place: Place) -> str:
    return f"{place[0]}, partition {place[1]}, offset {place[2]}"


def _when(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _said(letters: list[Letter]) -> list[str]:
    """Each reason once, with the table's words."""
    from headrace.schemas.reasons import REASONS

    lines = []
    for letter in {letter["reason"]: letter for letter in reversed(letters)}.values():
        lines += [f"reason    {letter['reason']}", f"detail    {letter['detail']!r}", f"refused   {_when(letter['ts_ms'])} UTC"]
        entry = REASONS.get(letter["reason"])
        if entry is not None:
            lines += [f"what      {entry.what}", f"said by   {', '.join(entry.seen)}", f"next      {entry.then}",
                      f"resend    {'yes: headrace dead-letters resend --reason ' + letter['reason'] if entry.resend else 'no'}"]
    return lines


def _original(log: Live, place: Place, letter: Letter) -> list[str]:
    """The record itself, read again, and decoded up to its fault."""
    record = log.originals([place]).get(place) if place[2] >= 0 else None
    if record is None:
        return [f"original  no longer in {_named(place)}; its first bytes:", *_dump(letter["first_bytes"])]
    size = "no value" if record.value is None else f"{len(record.value)} bytes"
    lines = [f"original  {_named(place)}: {size}, key {record.key!r}, taken {_when(record.timestamp_ms)} UTC"]
    return lines + _fields(log, record)


def _fields(log: Live, record: Any) -> list[str]:
    from headrace.dead_letters import schema_of
    from headrace.schemas.errors import Malformed
    from headrace.schemas.peek import peek, shown

    if schema_of(record.topic) is None:
        return _foreign(record.value)
    try:
        fields, fault = peek(log.writer_schema(record), record.value)
    except (Malformed, KeyError) as error:
        return [f"          cannot be read: {error}", *_dump((record.value or b"")[:256])]
    lines = [f"  {name:<20} {shown(value)}" for name, value in fields.items()]
    return [*lines, *([f"  here it ends: {fault}", *_dump(record.value[:256])] if fault else [])]


def _foreign(value: bytes | None) -> list[str]:
    """A record of a topic that others write: as text, or as bytes when it begins as no text does."""
    if not value or value[0] < 9:
        return _dump((value or b"")[:256])
    text = value[:FOREIGN_BYTES].decode(errors="replace")
    return ["  " + "".join(one if one.isprintable() else "." for one in line) for line in text.splitlines()]


def _dump(data: bytes) -> list[str]:
    """Sixteen bytes a line, as hexadecimal and as text."""
    return [f"  {at:04x}  {data[at : at + 16].hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in data[at : at + 16])}"
            for at in range(0, len(data), 16)]
