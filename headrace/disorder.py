"""A stream as clients really send it: a seeded share of its events late, sent twice, or out of order. Event times stay what they are.

It stands between who makes a stream and who sends it. `late`: held until the stream is further on than the samples job waits, so that the
watermark may have passed (whether it has, dead letters say). `out_of_order`: held for less than that, so that newer events come before it.
`duplicate`: sent again a few events later, with its event_id, as a client does that had no answer.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headrace.schemas.mapped import Record

LATE_EVENTS = (200, 400)  # further events that a late one waits for at least: a watermark is sent by the clock, not by the event
AGAIN_EVENTS = (1, 50)  # a retry is known among the last 64 events of its user
Send = Callable[[bytes, Record], Any]


class Shares(NamedTuple):
    """Of all events, each within 0 and 1, no event being two of them."""

    late: float = 0.0
    duplicate: float = 0.0
    out_of_order: float = 0.0

    @classmethod
    def of(cls, late: float, duplicate: float, out_of_order: float) -> Shares:
        """Raises ValueError when they are more than all events."""
        if not late + duplicate + out_of_order <= 1:
            raise ValueError(f"late, duplicate and out of order are {late + duplicate + out_of_order:g} of all events: at most 1 in sum")
        return cls(late, duplicate, out_of_order)


@dataclass
class Disorder:
    """Passes events on to `send`; `close` passes on what is still held. Counted in `done`: events that went behind newer ones by more than
    `out_of_orderness_ms` (late) or by less (out_of_order), and those sent twice (duplicates)."""

    send: Send
    shares: Shares
    out_of_orderness_ms: int
    seed: int = 0
    done: dict[str, int] = field(default_factory=lambda: {"late": 0, "duplicates": 0, "out_of_order": 0})

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._newest_ms = 0  # of what was passed on
        self._passed = self._came = 0
        self._held: list[tuple[int, int, int, bytes, Record]] = []  # (until_ms, number, until how many have passed, key, record)
        self._twice: list[tuple[int, int, bytes, Record]] = []  # (until how many have passed, number, key, record)

    def __call__(self, key: bytes, record: Record) -> None:
        self._came += 1
        late, twice, shuffled = self.shares
        chance, slack = self._random.random(), self.out_of_orderness_ms
        self._release(record["ts_ms"])
        if chance < late:
            until_ms = record["ts_ms"] + slack + 1 + self._random.randrange(slack + 1)
            self._hold(until_ms, self._passed + self._random.randint(*LATE_EVENTS), key, record)
        elif chance < late + shuffled:
            self._hold(record["ts_ms"] + self._random.randrange(slack + 1), 0, key, record)
        else:
            self._pass(key, record)
            if chance < late + shuffled + twice:
                heapq.heappush(self._twice, (self._passed + self._random.randint(*AGAIN_EVENTS), self._came, key, record))

    def close(self) -> None:
        """Pass on all that is held."""
        while self._held:
            self._pass(*heapq.heappop(self._held)[3:])
        while self._twice:
            self._again()

    def _hold(self, until_ms: int, until: int, key: bytes, record: Record) -> None:
        heapq.heappush(self._held, (until_ms, self._came, until, key, {**record}))

    def _release(self, ts_ms: int) -> None:
        """Pass on what must not be overtaken by an event of `ts_ms`, and what is due."""
        waiting = []
        while self._held and self._held[0][0] < ts_ms:
            one = heapq.heappop(self._held)
            if one[2] > self._passed:
                waiting.append(one)
            else:
                self._pass(*one[3:])
        for one in waiting:
            heapq.heappush(self._held, one)
        while self._twice and self._twice[0][0] <= self._passed:
            self._again()

    def _again(self) -> None:
        _, _, key, record = heapq.heappop(self._twice)
        self.send(key, record)
        self.done["duplicates"] += 1

    def _pass(self, key: bytes, record: Record) -> None:
        behind_ms = self._newest_ms - record["ts_ms"]
        if behind_ms > 0:
            self.done["late" if behind_ms > self.out_of_orderness_ms else "out_of_order"] += 1
        self._newest_ms = max(self._newest_ms, record["ts_ms"])
        self._passed += 1
        self.send(key, record)
