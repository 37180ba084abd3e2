"""What a seed stands for: sizes of the world, and the interactions that enter it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

OUT_OF_ORDER_MS, WINDOW_MS = 2000, 8000
T0 = 874_724_710_000
IMPRESSION, CLICK, DWELL = 1, 2, 7
SOURCE = 7
PAGE = 4096


class Event(NamedTuple):
    """One record of `interactions`; `request`: the event key of the impression that an action names, 0 without one."""

    partition: int
    offset: int
    ts_ms: int
    action: int
    user: int
    item: int
    event: int
    request: int

    @property
    def cause(self) -> tuple[int, int]:
        return self.partition, self.offset


@dataclass(frozen=True)
class Plan:
    """`short`: whose ring is too short, "" for nobody's. `eager`: the samples stage's strategy. `older`: a shard's folder is put back as it
    was some time ago. `stride`: mean distance of two offsets."""

    seed: int
    partitions: int
    shards: int
    events: int
    eager: bool
    stride: int
    short: str
    older: bool
    backfills: bool
    danger: float
    rocks: bool = False

    @classmethod
    def of(cls, seed: int, rocks: bool = False) -> Plan:
        chance = random.Random(f"plan {seed}")
        short = chance.choices(["", "ps", "features"], [80, 14, 6])[0]
        return cls(seed, chance.choice([2, 3]), chance.choice([2, 2, 3]), chance.randint(100, 160), chance.random() < 0.5,
                   chance.randint(300, 900) if short else chance.choice([1, 2, 40]), short, not short and chance.random() < 0.25,
                   chance.random() < 0.3, chance.uniform(0.005, 0.025), rocks)

    @property
    def rings(self) -> tuple[int, int]:
        """Ring lengths of the feature shard and of the parameter shards."""
        long = 1 << 20
        return (PAGE if self.short == "features" else long, PAGE if self.short == "ps" else long)

    def interactions(self) -> list[Event]:
        """In order of arrival: nearly the order of time, some very late, some sent again by their client under another offset."""
        chance = random.Random(f"log {self.seed}")
        arriving = sorted(self._sent(chance), key=lambda sent: sent[0])
        offsets = [0] * self.partitions
        log = []
        for _, (ts_ms, action, user, item, event, request) in arriving:
            partition = user % self.partitions
            offsets[partition] += chance.randint(1, 2 * self.stride - 1)
            log.append(Event(partition, offsets[partition], ts_ms, action, user, item, event, request))
        return log

    def _sent(self, chance: random.Random) -> list[tuple[float, tuple[int, ...]]]:
        """(time of arrival, (ts_ms, action, user, item, event, request))."""
        sent: list[tuple[float, tuple[int, ...]]] = []
        shown: list[tuple[int, int, int, int]] = []
        ts_ms = T0
        for event in range(1, self.events + 1):
            ts_ms += chance.randint(50, 1200)
            if not shown or chance.random() < 0.65:
                user, item = chance.randint(1, 9), chance.randint(101, 115)
                shown.append((ts_ms, user, item, event))
                action, request = IMPRESSION, 0
            else:
                _, user, item, exposure = chance.choice(shown[-12:])
                action, request = chance.choice([CLICK, CLICK, CLICK, DWELL]), exposure if self.eager else 0
            delay_ms = chance.uniform(0, OUT_OF_ORDER_MS * 0.9) if chance.random() < 0.93 else chance.uniform(0, 3 * WINDOW_MS)
            body = (ts_ms, action, user, item, event, request)
            sent.append((ts_ms + delay_ms, body))
            if chance.random() < 0.04:
                sent.append((ts_ms + delay_ms + chance.uniform(1, WINDOW_MS), body))
        return sent
