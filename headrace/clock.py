"""The stack's one clock: event time of the log, or now. The engine holds it; replay, emit and heartbeats agree with it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

import httpx

from headrace.api import bearer

AHEAD_MS = 5000  # the stack's clock runs on while a replay prepares


class ClockRefused(Exception):
    """The file and the stack disagree about time; the message says both and the ways out."""


class EngineUnavailable(Exception):
    """The engine does not answer: `headrace status`, then its log."""


@dataclass(frozen=True)
class State:
    """mode null: nothing has been sent yet. ts_ms: event time that the stack has reached, None while there is none."""

    mode: Literal["log", "now"] | None = None
    ts_ms: int | None = None


class StackClock:
    """GET and POST {engine}/clock."""

    def __init__(self, url: str, client: httpx.Client | None = None, key: str | None = None, verify: ssl.SSLContext | bool = True,
                 timeout_s: float = 10.0) -> None:
        self._url = url.rstrip("/") + "/clock"
        # No proxy to a loopback address.
        self._client = client or httpx.Client(timeout=timeout_s, trust_env=False, headers=bearer(key), verify=verify)

    def state(self) -> State:
        """Raises EngineUnavailable."""
        body = self._ask("GET", None)
        return State(body.get("mode"), body.get("ts_ms"))

    def set(self, mode: Literal["log", "now"], ts_ms: int, hold_ms: int | None = None) -> None:
        """Claim `mode`, and under `log` move the clock to `ts_ms`; `hold_ms`: the caller sends heartbeats for so long, 0 gives them back.

        Raises ClockRefused, EngineUnavailable.
        """
        self._ask("POST", {"mode": mode, "ts_ms": ts_ms} | ({} if hold_ms is None else {"hold_ms": hold_ms}))

    def leave_log(self) -> State:
        """From a log's time to today's, for good. Raises ClockRefused, EngineUnavailable."""
        body = self._ask("POST", {"mode": "now", "leave_log": True})
        return State(body["mode"], body["ts_ms"])

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, self._url, json=body)
        except httpx.HTTPError as error:
            raise EngineUnavailable(f"the engine at {self._url} does not answer ({type(error).__name__}); is the stack up? "
                                    "`headrace up`, `headrace status`") from None
        if answer.status_code in (400, 409, 422):
            raise ClockRefused(f"the engine refuses the clock: {_error(answer)}")
        if answer.status_code != 200:
            raise EngineUnavailable(f"{self._url} answered {answer.status_code}: {answer.text[:200]}")
        return answer.json()


def agree(state: State, mode: Literal["log", "now"], first_ts_ms: int, last_ts_ms: int, file: str) -> None:
    """Raise ClockRefused unless a file with these event times can be replayed under `mode` into a stack in `state`."""
    if state.mode is not None and state.mode != mode:
        way = "--clock now" if state.mode == "now" else "--clock log"
        raise ClockRefused(f"this stack runs on the clock {state.mode!r}, and a stack has one clock a run: replay with {way}, "
                           "or start a stack with a new data dir (`headrace up --data DIR`, and --data DIR with every command after it)"
                           + ("; `headrace clock now` takes this one to today, for good" if state.mode == "log" else ""))
    if mode == "log" and state.ts_ms is not None and state.mode == "log" and first_ts_ms < state.ts_ms + AHEAD_MS:
        raise ClockRefused(f"the stack's event time is {text_of(state.ts_ms)} and {file} runs from {text_of(first_ts_ms)} to "
                           f"{text_of(last_ts_ms)}: what lies before the stack's time would be late. Replay it into a stack with a "
                           "new data dir (`headrace up --data DIR`, and --data DIR with every command after it)")


def sentence(state: State) -> str:
    """What the clock means for who sends events."""
    if state.mode is None or state.ts_ms is None:
        return "clock: not set yet; the first live event sets it to now, a replay to its log's time unless --clock now"
    if state.mode == "now":
        return f"clock: now ({text_of(state.ts_ms)})"
    return (f"clock: a replayed log's, event time {text_of(state.ts_ms)}; events that bring a ts_ms of today wait, and are not learnt,"
            " until event time comes to them (those without one get the log's time): `headrace clock now` takes the stack to today, for"
            " good")


def waits(state: State, ts_ms: int) -> str:
    """Why an event of `ts_ms` is no sample yet, when the stack's clock is the reason; else ""."""
    if state.mode != "log" or state.ts_ms is None or ts_ms <= state.ts_ms:
        return ""
    return (f"it waits for event time: it is of {text_of(ts_ms)}, and the stack's clock is a replayed log's, at {text_of(state.ts_ms)}; "
            "`headrace clock now` takes the stack to today, for good")


def _error(answer: httpx.Response) -> str:
    """The sentence of an engine's refusal."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:300]


def text_of(ts_ms: int) -> str:
    """UTC, to the second."""
    return datetime.fromtimestamp(ts_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
