"""Events that come by HTTP: checked one by one, filled in, sent; a verdict for each."""

from __future__ import annotations

import difflib
import json
import math
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from headrace.engine.clock import LOG, Clock
from headrace.engine.exposures import Keyed
from headrace.features.layout import ACTIONS
from headrace.schemas.errors import Malformed
from headrace.schemas.interaction import HEARTBEAT, check_interaction

DEFAULTS: dict[str, Any] = {"request_id": None, "scene": "", "value": 1.0, "position": None, "context": {}, "exposure": None}
FIELDS = ("event_id", "request_id", "scene", "user_id", "item_id", "action", "value", "position", "ts_ms", "context")
Send = Callable[[list[Keyed]], list[str]]
AHEAD_MS = 60_000  # a producer of a log runs ahead of its stack by less


class Events:
    """Takes events as JSON objects. `send(records)` returns, for each, "" once the log has it, else why not. Larger ones than `bytes_max`
    bytes of JSON are refused. `learnt`: actions that are, known like those of features."""

    def __init__(self, clock: Clock, send: Send, bytes_max: int = 65536, learnt: Sequence[str] = ("click",)) -> None:
        self._clock, self._send, self._bytes_max = clock, send, bytes_max
        self._actions = tuple(dict.fromkeys((*ACTIONS, *learnt)))

    def take(self, events: Sequence[Any]) -> list[dict[str, Any]]:
        """A verdict for each: {"accepted": true, "event_id"} or {"accepted": false, "reason", "detail"}. Events that are good are sent even
        when others are not. Without event_id or ts_ms they get a random one and the clock's time."""
        verdicts: list[dict[str, Any]] = []
        records: list[Keyed] = []
        accepted: list[dict[str, Any]] = []
        for event in events:
            try:
                record = self._record(event)
            except Malformed as error:
                verdicts.append({"accepted": False, "reason": error.reason, "detail": error.detail})
                continue
            verdicts.append({"accepted": True, "event_id": record["event_id"]})
            accepted.append(verdicts[-1])
            records.append((record["user_id"].encode(), record))
        for verdict, failure in zip(accepted, self._send(records) if records else [], strict=True):
            if failure:
                verdict |= {"accepted": False, "reason": "undelivered", "detail": failure}
        return verdicts

    def note(self, events: Sequence[dict[str, Any]]) -> str:
        """What is to be said of events that were accepted and yet do little: those of an action that nothing counts, and those that wait
        until event time reaches theirs, as those of today do on an old log's clock. "" when there is nothing to say."""
        return "; ".join(said for said in (self._unknown(events), self._ahead(events)) if said)

    def _unknown(self, events: Sequence[dict[str, Any]]) -> str:
        """An action may be anybody's own, so a misspelt one is taken, and this tells it."""
        action = next((event["action"] for event in events if event["action"] not in self._actions), None)
        if action is None:
            return ""
        near = difflib.get_close_matches(action, self._actions, 1)
        return (f"no feature and no label counts the action {action!r:.80}" + (f", the nearest that counts is {near[0]!r}" if near else
                f"; those that count are {', '.join(self._actions)} (samples.target and samples.also say which are learnt)"))

    def _ahead(self, events: Sequence[dict[str, Any]]) -> str:
        state = self._clock.state()
        if state["mode"] != LOG:
            return ""
        times = [event.get("ts_ms") for event in events]
        ahead = sum(isinstance(ts_ms, int) and ts_ms > state["ts_ms"] + AHEAD_MS for ts_ms in times)
        return (f"{ahead} of these events lie ahead of the stack's event time, {state['ts_ms']}, and are not learnt before it comes there:"
                " it is a replayed log's; `headrace clock now` takes it to today, for good") if ahead else ""

    def _record(self, event: Any) -> dict[str, Any]:
        """The interactions record of an event. Raises Malformed."""
        if not isinstance(event, dict):
            raise Malformed("bad_type", "an event is a JSON object")
        for name in event:
            if name not in FIELDS:
                near = difflib.get_close_matches(name, FIELDS, 1, 0)
                raise Malformed("unknown_field", f"{name!r:.60}; the nearest is {near[0]!r}" if near else f"{name!r:.60}")
        for name in ("user_id", "item_id", "action"):
            if name not in event:
                raise Malformed("missing_field", f"{name} is missing")
        record = {**DEFAULTS, **event}
        _check_types(record)
        if len(json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")) > self._bytes_max:
            raise Malformed("oversized", f"an event has at most {self._bytes_max} bytes")
        if record["action"] == HEARTBEAT:
            raise Malformed("bad_action", "heartbeats are the engine's own")
        record["value"] = float(record["value"])
        record.setdefault("event_id", uuid.uuid4().hex)
        check_interaction({"ts_ms": 10**12, **record})
        if "ts_ms" in record:
            self._clock.met(record["ts_ms"])
        else:
            record["ts_ms"] = self._clock.use()  # only now: a refused event does not fix the clock
        return record


def _check_types(record: dict[str, Any]) -> None:
    for name in ("event_id", "scene", "user_id", "item_id", "action", "request_id"):
        value = record.get(name, "")
        if not (_is_text(value) or (name == "request_id" and value is None)):
            raise Malformed("bad_type", f"{name} is a text in UTF-8")
    if not record.get("event_id", "given"):
        raise Malformed("empty_id", "event_id is empty; leave it out to get one")
    if len(record["scene"].encode()) > 256 or len((record["request_id"] or "").encode()) > 256:
        raise Malformed("long_id", "scene and request_id have at most 256 bytes")
    value, position, ts_ms = record["value"], record["position"], record.get("ts_ms", 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
        raise Malformed("bad_value", "value is a finite number")
    if position is not None and (isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < 2**31):
        raise Malformed("bad_position", "position is a whole number from 0")
    if isinstance(ts_ms, bool) or not isinstance(ts_ms, int):
        raise Malformed("bad_ts", "ts_ms is a whole number of milliseconds")
    context = record["context"]
    if not isinstance(context, dict) or not all(_is_text(name) and _is_text(value) for name, value in context.items()):
        odd = next((f", and {str(name)!r:.60} is no text" for name, value in context.items() if not (_is_text(name) and _is_text(value))),
                   "") if isinstance(context, dict) else ""
        raise Malformed("bad_context", f"context is an object of texts{odd}")


def _is_text(value: Any) -> bool:
    """A lone surrogate is a str in Python and nothing in UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
