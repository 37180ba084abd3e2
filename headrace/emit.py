"""JSON lines to the engine's POST /events, in batches, with a verdict for each line. Needs the base install only."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

BATCH_EVENTS = 500
IDLE_S = 0.05


class EmitFailed(Exception):
    """The engine could not be asked; what came before was sent, and the message says from which line on nothing was."""


@dataclass
class Verdicts:
    """What became of the lines: how many were accepted, and (line number from 1, reason) of each refused. `note`: the engine's last word on
    accepted ones."""

    accepted: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    note: str = ""


Post = Callable[[list[dict[str, Any]]], Any]


def emit(lines: Iterable[str], post: Post, refused: Callable[[int, str], Any] = lambda line, reason: None) -> Verdicts:
    """Send `lines` through `post`, which takes events and returns the answer's JSON; `refused` is told at once of each refusal.

    A batch goes when it is full, or when no line has come for 50 ms. Raises EmitFailed.
    """
    verdicts = Verdicts()

    def refuse(number: int, reason: str) -> None:
        verdicts.refused.append((number, reason))
        refused(number, reason)

    for batch in batches(lines):
        numbers, events = [], []
        for number, line in batch:
            try:
                event = json.loads(line)
            except ValueError as error:
                refuse(number, f"no JSON: {error}")
                continue
            if not isinstance(event, dict):
                refuse(number, "no JSON object")
                continue
            numbers.append(number)
            events.append(event)
        if not events:
            continue
        try:
            answer = post(events)
            answers = reasons(answer, len(events))
        except EmitFailed as error:
            raise EmitFailed(f"{error}; lines from {numbers[0]} on were not acknowledged, "
                             f"{verdicts.accepted} before them were accepted") from None
        if isinstance(answer, dict):
            verdicts.note = str(answer.get("note", "")) or verdicts.note
        for number, reason in zip(numbers, answers, strict=True):
            if reason is None:
                verdicts.accepted += 1
            else:
                refuse(number, reason)
    return verdicts


def poster(url: str, client: httpx.Client) -> Post:
    """Posts a batch to {url}/events. Raises EmitFailed when nobody answers, or with anything but verdicts."""
    where = url.rstrip("/") + "/events"

    def post(events: list[dict[str, Any]]) -> Any:
        try:
            answer = client.post(where, json=events)
        except httpx.HTTPError as error:
            raise EmitFailed(f"{where} does not answer ({type(error).__name__}); is the stack up? `headrace status`") from None
        try:
            return answer.json()
        except ValueError:
            raise EmitFailed(f"{where} answered {answer.status_code}: {answer.text[:200]}") from None

    return post


def reasons(answer: Any, count: int) -> list[str | None]:
    """None for each event accepted, the reason for each refused. Raises EmitFailed for an answer without `count` verdicts."""
    listed = answer.get("verdicts") if isinstance(answer, dict) else answer
    if not isinstance(listed, list) or len(listed) != count:
        raise EmitFailed(f"the engine gave no verdict for each of {count} events: {json.dumps(answer)[:300]}")
    found: list[str | None] = []
    for verdict in listed:
        reason = ": ".join(str(verdict[name]) for name in ("reason", "detail") if verdict.get(name))
        found.append(None if verdict.get("accepted") else reason or "refused without a reason")
    return found


def batches(lines: Iterable[str]) -> Iterator[list[tuple[int, str]]]:
    """(line number from 1, line) of lines that are not blank, in batches; a slow input's lines go when it pauses."""
    waiting: queue.Queue[tuple[int, str] | None] = queue.Queue(maxsize=4 * BATCH_EVENTS)

    def fill() -> None:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    waiting.put((number, line))
        finally:
            waiting.put(None)

    threading.Thread(target=fill, name="lines", daemon=True).start()
    batch: list[tuple[int, str]] = []
    while True:
        try:
            item = waiting.get(timeout=IDLE_S if batch else None)
        except queue.Empty:
            yield batch
            batch = []
            continue
        if item is not None:
            batch.append(item)
        if batch and (item is None or len(batch) >= BATCH_EVENTS):
            yield batch
            batch = []
        if item is None:
            return
