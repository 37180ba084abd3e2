"""`headrace clock`: the stack's event time, and from a log's time to today."""

from __future__ import annotations

import json
from contextlib import closing
from enum import Enum
from typing import Annotated

import typer

from headrace.commands.options import Data, File, Json, configured


class To(str, Enum):
    """Where the clock can be taken."""

    now = "now"


def command(
    to: Annotated[To | None, typer.Argument(help="now: take a stack that has replayed a log to today, for good.")] = None,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """Show the stack's clock; `headrace clock now` takes it from a log's time to today, so that live events are learnt.

    Event time moves forward only: windows close, what decays decays by the time between, and no older log can follow. Not during a replay.
    """
    from headrace.access import given
    from headrace.clock import StackClock, sentence

    with closing(StackClock(**given(configured(file, data).engine))) as clock:
        state = clock.leave_log() if to else clock.state()
    typer.echo(json.dumps({"mode": state.mode, "ts_ms": state.ts_ms}) if as_json else sentence(state))
