"""The topic `dead-letters` for people: counted by reason, one shown with what it refused, many sent again once their cause is mended.

What is sent again is a new record with a new offset, so a new cause, and the same event_id: were the first folded after all, the second is
dropped as a retry. A letter of reason `resent` marks what was, and the record carries the header `headrace-resent-of`. A mark follows the
broker's word that it has the record: a command that dies between the two sends that one again at its next run.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace import kafka
from headrace.config import Config
from headrace.kafka import Producer, Record
from headrace.schemas.codec import Codec, schema_name
from headrace.schemas.errors import Malformed
from headrace.schemas.reasons import REASONS
from headrace.schemas.registry import RegistryClient

TOPIC = "dead-letters"
HEADER = "headrace-resent-of"
RESENT, UNREADABLE = "resent", "unreadable"
BLOCK = 500
Letter = dict[str, Any]
Place = tuple[str, int, int]


class Log(Protocol):
    """What dead letters and their originals are read from and written to: `Live`, or a dictionary in tests."""

    def read_letters(self, since_ms: int | None = None) -> Iterable[Letter]: ...

    def originals(self, places: Sequence[Place]) -> dict[Place, Record]: ...

    def send(self, records: Sequence[tuple[str, bytes | None, bytes | None, dict[str, bytes]]]) -> list[tuple[int, int]]: ...

    def tell(self, letters: Sequence[Letter]) -> None: ...

    def user_of(self, record: Record) -> bytes | None: ...


@dataclass
class Count:
    """Refused records of one reason, each once: how many, when the first and the last, and where the last lies."""

    reason: str
    records: int = 0
    first_ms: int = 0
    last_ms: int = 0
    example: str = ""


@dataclass
class Resent:
    """What a resend did: sent, sent by an earlier one, gone from their topic, without a place, of a topic that others write, and by reason
    what is not to be resent."""

    sent: int = 0
    before: int = 0
    gone: int = 0
    nowhere: int = 0
    foreign: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def place_of(letter: Letter) -> Place:
    return letter["topic"], letter["partition"], letter["offset"]


def schema_of(topic: str) -> str | None:
    """The schema of a topic of ours, None for one that others write."""
    try:
        return schema_name(topic)
    except KeyError:
        return None


def _which(letter: Letter) -> tuple[Any, ...]:
    """Equal for letters that say the same of the same record."""
    return letter["reason"], *place_of(letter), letter["detail"] if letter["offset"] < 0 else ""


def chosen(letters: Iterable[Letter], reason: str | None = None, topic: str | None = None) -> Iterator[Letter]:
    return (one for one in letters if reason in (None, one["reason"]) and topic in (None, one["topic"]))


def counts(letters: Iterable[Letter]) -> list[Count]:
    """By reason, most first. A replay says the same letter again: a place counts once."""
    found: dict[str, Count] = {}
    seen: set[tuple[Any, ...]] = set()
    for letter in letters:
        place, which = place_of(letter), _which(letter)
        count = found.setdefault(letter["reason"], Count(letter["reason"], first_ms=letter["ts_ms"]))
        count.records += which not in seen
        seen.add(which)
        count.first_ms, count.last_ms = min(count.first_ms, letter["ts_ms"]), max(count.last_ms, letter["ts_ms"])
        count.example = " ".join(map(str, place))
    return sorted(found.values(), key=lambda one: -one.records)


def resend(log: Log, reasons: Sequence[str] | None = None, *, topic: str | None = None, limit: int | None = None, force: bool = False,
           dry_run: bool = False) -> Resent:
    """Send the originals of refused records again, oldest letter first, at most `limit`; `reasons` None: of every reason that may be.

    Without `force`, only reasons that the table says to resend. Each under its user_id when it can be decoded, else under its old key.
    """
    letters = list(log.read_letters())
    marked = {place_of(letter) for letter in letters if letter["reason"] == RESENT}
    result, places, seen = Resent(), dict[Place, None](), set[tuple[Any, ...]]()
    for letter in chosen(letters, topic=topic):
        place, reason = place_of(letter), letter["reason"]
        if reason in (RESENT, UNREADABLE) or (reasons is not None and reason not in reasons) or _which(letter) in seen:
            continue
        seen.add(_which(letter))
        if not force and not (reason in REASONS and REASONS[reason].resend):
            result.refused[reason] += 1
        elif place[2] < 0:
            result.nowhere += 1
        elif schema_of(place[0]) is None:
            result.foreign += 1  # nothing is ever written into a topic that is only read here
        elif place in marked:
            result.before += 1
        else:
            places[place] = None
    wanted = list(places)[:limit]
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK]
        found = log.originals(block)
        there = [place for place in block if place in found]
        result.gone += len(block) - len(there)
        result.sent += len(there)
        if not dry_run and there:
            _send(log, there, found)
    return result


def _send(log: Log, places: list[Place], found: dict[Place, Record]) -> None:
    records = [(place[0], log.user_of(found[place]), found[place].value, {HEADER: "/".join(map(str, place)).encode()}) for place in places]
    now_ms = int(time.time() * 1000)
    log.tell([{"topic": place[0], "partition": place[1], "offset": place[2], "reason": "resent",
               "detail": f"sent again as partition {partition}, offset {offset}", "first_bytes": b"", "ts_ms": now_ms}
              for place, (partition, offset) in zip(places, log.send(records), strict=True)])


class Live:
    """A running stack's Kafka and registry."""

    def __init__(self, config: Config) -> None:
        self._bootstrap = config.kafka.cluster
        self._registry = RegistryClient(config.registry.access)
        self._letters = Codec(TOPIC, self._registry)
        self._codecs = {"interactions": Codec("interactions", self._registry)}
        self._made: Producer | None = None

    def read_letters(self, since_ms: int | None = None) -> Iterator[Letter]:
        """In their order. What another has written there, and nobody can read, has reason `unreadable`."""
        marks = kafka.watermarks(self._bootstrap, TOPIC)
        start = {p: low for p, (low, _) in marks.items()} if since_ms is None else kafka.since(self._bootstrap, TOPIC, since_ms)
        for record in kafka.span(self._bootstrap, TOPIC, start, {p: high for p, (_, high) in marks.items()}):
            try:
                yield self._letters.decode(record.value)
            except Malformed as error:
                yield {"topic": TOPIC, "partition": record.partition, "offset": record.offset, "reason": UNREADABLE, "detail": str(error),
                       "first_bytes": (record.value or b"")[:256], "ts_ms": record.timestamp_ms}

    def originals(self, places: Sequence[Place]) -> dict[Place, Record]:
        """Those that their topics still hold."""
        found: dict[Place, Record] = {}
        for topic in {place[0] for place in places}:
            held = kafka.fetch(self._bootstrap, topic, [place[1:] for place in places if place[0] == topic])
            found |= {(topic, *at): record for at, record in held.items()}
        return found

    def send(self, records: Sequence[tuple[str, bytes | None, bytes | None, dict[str, bytes]]]) -> list[tuple[int, int]]:
        """(partition, offset) that each has got. Raises Undelivered."""
        given: dict[int, tuple[int, int]] = {}
        for number, (topic, key, value, headers) in enumerate(records):
            self._producer.send(topic, key, value, _keep(given, number), headers=headers)
        self._producer.flush()
        return [given[number] for number in range(len(records))]

    def tell(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            self._producer.send(TOPIC, None, self._letters.encode(letter))
        self._producer.flush()

    def user_of(self, record: Record) -> bytes | None:
        """The key that the record should have: its user_id when it can be read, else the one it has."""
        try:
            return self._codecs["interactions"].decode(record.value)["user_id"].encode() if record.topic == "interactions" else record.key
        except Malformed:
            return record.key

    def writer_schema(self, record: Record) -> Any:
        """The schema that a record's bytes were written with. Raises Malformed when it has none, KeyError for a topic not ours."""
        if record.topic not in self._codecs:
            self._codecs[record.topic] = Codec(record.topic, self._registry)
        return self._codecs[record.topic].writer_schema(record.value)

    def close(self) -> None:
        self._registry.close()

    @property
    def _producer(self) -> Producer:
        if self._made is None:
            self._made = Producer(self._bootstrap)
        return self._made


def _keep(given: dict[int, tuple[int, int]], number: int) -> Callable[[Any, Any], None]:
    def delivered(error: Any, message: Any) -> None:
        if error is None:
            given[number] = (message.partition(), message.offset())

    return delivered


@contextmanager
def live(config: Config) -> Iterator[Live]:
    """The log of `config`'s stack. A client that finds no broker says so twenty times a second: here it is raised once, as a sentence."""
    log, level = Live(config), kafka.client_log.level
    kafka.client_log.setLevel(logging.CRITICAL)
    try:
        yield log
    finally:
        kafka.client_log.setLevel(level)
        log.close()
