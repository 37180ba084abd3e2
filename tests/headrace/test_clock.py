"""`headrace clock` and what is said of a stack's clock, over an engine that answers from memory."""

from __future__ import annotations

import json

import httpx
import pytest
import typer
from typer.testing import CliRunner

from headrace.clock import ClockRefused, EngineUnavailable, StackClock, State, agree, sentence, waits
from headrace.commands import clock as command_of

LOG_MS, TODAY_MS = 893_286_638_000, 1_790_000_000_000
APP = typer.Typer()
APP.command()(command_of.command)


def over(answer) -> StackClock:
    return StackClock("http://engine", httpx.Client(transport=httpx.MockTransport(answer)))


def test_the_log_is_left_by_one_call_and_a_refusal_is_the_engines_own_sentence():
    asked = []

    def engine(request):
        asked.append(json.loads(request.content))
        return httpx.Response(200, json={"mode": "now", "ts_ms": TODAY_MS})

    assert over(engine).leave_log() == State("now", TODAY_MS)
    assert asked == [{"mode": "now", "leave_log": True}]
    with pytest.raises(ClockRefused, match=r"refuses the clock: the log's time is ahead$"):
        over(lambda request: httpx.Response(409, json={"error": "the log's time is ahead", "next": "wait"})).leave_log()
    with pytest.raises(ClockRefused, match="plain text"):
        over(lambda request: httpx.Response(422, text="plain text")).leave_log()
    with pytest.raises(EngineUnavailable, match="502"):
        over(lambda request: httpx.Response(502, text="bad gateway")).state()


@pytest.mark.parametrize(("state", "says"), [
    (State(), "not set yet"), (State("now", TODAY_MS), "clock: now (2026-"),
    (State("log", LOG_MS), "event time 1998-04-22 23:10:38 UTC; events that bring a ts_ms of today wait"),
])
def test_the_clock_is_said(state, says):
    assert says in sentence(state) and ("headrace clock now" in sentence(state)) == (state.mode == "log")


def test_only_what_lies_ahead_of_a_logs_clock_waits():
    assert waits(State(), TODAY_MS) == waits(State("now", LOG_MS), TODAY_MS) == waits(State("log", LOG_MS), LOG_MS) == ""
    said = waits(State("log", LOG_MS), TODAY_MS)
    assert "1998-04-22" in said and "2026-" in said and "headrace clock now" in said


def test_the_way_out_of_a_logs_clock_is_named_and_none_of_now():
    with pytest.raises(ClockRefused, match="headrace clock now"):
        agree(State("log", LOG_MS), "now", TODAY_MS, TODAY_MS, "f")
    with pytest.raises(ClockRefused) as refused:
        agree(State("now", TODAY_MS), "log", LOG_MS, LOG_MS, "f")
    assert "headrace clock now" not in str(refused.value)


def test_the_command_shows_and_moves(monkeypatch):
    class Held:
        def __init__(self, **_):
            pass

        def state(self):
            return State("log", LOG_MS)

        def leave_log(self):
            return State("now", TODAY_MS)

        def close(self):
            pass

    monkeypatch.setattr("headrace.clock.StackClock", Held)
    assert "1998-04-22" in CliRunner().invoke(APP, []).output
    assert json.loads(CliRunner().invoke(APP, ["--json"]).output) == {"mode": "log", "ts_ms": LOG_MS}
    assert CliRunner().invoke(APP, ["now"]).output.startswith("clock: now")
    assert CliRunner().invoke(APP, ["log"]).exit_code == 2
