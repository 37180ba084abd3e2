"""What a trace is made of: records as topics hold them, hops with their times, and looking into a stack from outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from headrace.schemas.reasons import REASONS
from headrace.schemas.targets import Target, windows

LOG_MS = 3_600_000  # an event this much older than its arrival comes of a log: times are since its arrival then
Record = dict[str, Any]
Place = tuple[int, int]


class UnknownEvent(Exception):
    """Nothing of that name was found where it was looked for; the message says where that was and how to look further."""


class Seen(NamedTuple):
    """A record as `topic` holds it, taken by the broker at `at_ms`; `record` is empty when it cannot be read."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    record: Record

    @property
    def cause(self) -> Place:
        """(partition, offset) in interactions that the record is of; of an interaction its own place."""
        if self.topic == "interactions":
            return self.partition, self.offset
        return self.record["partition"], self.record["offset"]


class Topics(Protocol):
    """What a trace asks of a stack: headrace/trace_topics.py, or lists in tests. Times are the broker's, in ms since 1970."""

    @property
    def source(self) -> int:
        """Number of the topic interactions in causes."""

    def now_ms(self) -> int: ...

    def at(self, place: Place) -> Seen:
        """The interaction at (partition, offset). Raises UnknownEvent."""

    def named(self, event_id: str, start_ms: int, stop_ms: int) -> list[Seen]:
        """Interactions of that event_id, taken from `start_ms` to before `stop_ms`, in the order of time."""

    def scan(self, topic: str, start_ms: int, stop_ms: int, key: str | None = None) -> Iterator[Seen]:
        """Readable records taken from `start_ms` to before `stop_ms`, each partition in its order; with `key` only those under it."""

    def known(self, model: str, target: str, place: Place) -> list[int]:
        """Of each shard: 0 the cause is not applied, 1 it is, 2 it lies before the ring."""

    def slot(self, key: int) -> tuple[int, int]:
        """(slot, shard) of a row's key."""


@dataclass(frozen=True)
class How:
    """How the stack is configured, and how far a search goes: `within_ms` back for an event_id, and on from each hop for the next.
    `served`: the model whose vectors are made; `targets` of samples, without them `target` alone is."""

    model: str
    served: str
    target: str
    strategy: str
    window_ms: int
    out_of_orderness_ms: int
    publish_ms: int
    within_ms: int
    targets: tuple[Target, ...] = ()

    @property
    def action(self) -> str:
        """The one that is of the target."""
        return next((one.action for one in self.targets if one.name == self.target), self.target)

    def window_of(self, action: str) -> int:
        """ms after an exposure in which an action is attributed to it; `window_ms` is the widest."""
        return windows(self.targets).get(action, self.targets[0].window_ms) if self.targets else self.window_ms

    @property
    def live(self) -> bool:
        """Whether samples leave as they arrive."""
        return self.strategy != "wait"

    @property
    def job(self) -> str:
        return "train job" if self.model == self.served else f"train-{self.model} job"


@dataclass
class Hop:
    """One step: the topic where it shows, what it is `of`, the process that wrote it `by`; the hop `after` which it comes; `note` says why
    it is missing when nothing was seen, else what is to be said of it."""

    topic: str
    of: str
    by: str
    seen: Seen | None = None
    after: Hop | None = None
    note: str = ""

    @property
    def found(self) -> Seen:
        assert self.seen is not None, f"{self.topic} of {self.of} was taken for seen"
        return self.seen

    @property
    def took_ms(self) -> int | None:
        """Milliseconds since the hop before, as the broker took them; None for the first, and when one of the two is missing."""
        return self.seen.at_ms - self.after.seen.at_ms if self.seen and self.after and self.after.seen else None


@dataclass
class Trace:
    """Hops by time, what is missing last; sentences `said` beside them. `since`: what times are counted from, at `base_ms`: event, or
    arrival when the event is of a log."""

    event: Record
    cause: Place
    hops: list[Hop] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    since: str = "event"
    base_ms: int = 0

    @property
    def whole(self) -> bool:
        """Nothing is missing."""
        return all(hop.seen is not None for hop in self.hops)

    def ordered(self) -> Trace:
        """With hops in the order of time, and the base of times."""
        order = {hop.topic: number for number, hop in reversed(list(enumerate(self.hops)))}
        self.hops.sort(key=lambda hop: (hop.seen.at_ms, order[hop.topic], hop.seen[1:3]) if hop.seen else (1 << 62, 0, (0, 0)))
        first, ts_ms = self.hops[0].found, self.event.get("ts_ms")
        if ts_ms is None or abs(first.at_ms - ts_ms) > LOG_MS:
            self.since, self.base_ms = "arrival", first.at_ms
        else:
            self.base_ms = ts_ms
        return self


class Look:
    """Looking into `topics` of a stack configured as `how` says, at one moment."""

    def __init__(self, topics: Topics, how: How) -> None:
        self.topics, self.how, self.now_ms = topics, how, topics.now_ms()

    def is_of(self, record: Record, place: Place) -> bool:
        """Whether a record, or a block's newest, names the cause at `place`."""
        return (record["source"], record["partition"], record["offset"]) == (self.topics.source, *place)

    def missing(self, stop_ms: int) -> str:
        """What to say of a record that was not found before `stop_ms`."""
        if stop_ms > self.now_ms:
            return "not yet"
        return f"not within {self.how.within_ms // 1000} s of the hop before; --within S looks further"

    def refused(self, arrival: Seen, job: str) -> str:
        """The dead letter by which `job` refused an interaction, and whether that was sent again; "" when there is none."""
        mine = [letter for letter in self.letters(arrival.at_ms)
                if letter["topic"] == "interactions" and (letter["partition"], letter["offset"]) == arrival.cause]
        said = [told(letter) for letter in mine if letter["reason"] not in REASONS or job in REASONS[letter["reason"]].seen]
        return "; ".join(said[:1] + [letter["detail"] for letter in mine if letter["reason"] == "resent"][:1])

    def letters(self, start_ms: int) -> Iterator[Record]:
        """Dead letters from `start_ms` to now."""
        return (one.record for one in self.topics.scan("dead-letters", start_ms, self.now_ms + 1))


def told(letter: Record) -> str:
    """A dead letter in a line: reason, detail, what to do."""
    then = f"; {REASONS[letter['reason']].then}" if letter["reason"] in REASONS else ""
    return f"dead letter {letter['reason']}: {letter['detail'] or 'no detail'}{then}"


def name(place: Place) -> str:
    """PARTITION:OFFSET."""
    return f"{place[0]}:{place[1]}"
