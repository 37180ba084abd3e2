"""What must have come out, said slowly: labels from the log alone, frozen values and reads from one shard that nobody kills."""

from __future__ import annotations

from collections import Counter

import numpy as np

from headrace.features.shard import FeatureShard
from tests.protocol.jobs import Answer, causes_of, columns_of
from tests.protocol.memory import MemoryStore
from tests.protocol.plan import CLICK, IMPRESSION, OUT_OF_ORDER_MS, WINDOW_MS, Event
from tests.protocol.servers import HALF_LIFE_S

Cause = tuple[int, int]


def labels(log: list[Event], eager: bool) -> dict[Cause, int]:
    """The label of every impression that was in time; an event sent again counts once."""
    found: dict[Cause, int] = {}
    for partition in {event.partition for event in log}:
        seen: set[int] = set()
        mine = [event for event in log if event.partition == partition and not (event.event in seen or seen.add(event.event))]
        clock = np.maximum.accumulate([event.ts_ms - OUT_OF_ORDER_MS for event in mine])
        in_time = [i == 0 or event.ts_ms > clock[i - 1] for i, event in enumerate(mine)]
        for i, event in enumerate(mine):
            if event.action == IMPRESSION and in_time[i]:
                found[event.cause] = int(_eager(mine, clock, i) if eager else _wait(mine, in_time, i))
    return found


def _wait(mine: list[Event], in_time: list[bool], i: int) -> bool:
    """Some click in its window has it for the latest impression of the pair."""
    shown = mine[i]
    pair = [e for e, ok in zip(mine, in_time, strict=True) if ok and (e.user, e.item) == (shown.user, shown.item)]
    return any(
        max((e for e in pair if e.action == IMPRESSION and e.ts_ms <= click.ts_ms), key=lambda e: (e.ts_ms, e.offset)) == shown
        for click in pair if click.action == CLICK and 0 <= click.ts_ms - shown.ts_ms <= WINDOW_MS)


def _eager(mine: list[Event], clock: np.ndarray, i: int) -> bool:
    """A click of its request came no later than the record that closed its window."""
    shown = mine[i]
    after = np.nonzero(clock[i:] >= shown.ts_ms + WINDOW_MS)[0]
    closes = i + int(after[0]) if len(after) else len(mine)
    return any(e.action == CLICK and e.request == shown.event and 0 <= e.ts_ms - shown.ts_ms <= WINDOW_MS for e in mine[: closes + 1])


class Reference:
    """A feature shard that folds every event alone, in the order that `answers` recorded, and answers `reads` on its way.

    frozen: cause -> (keys, values, numbers) bytes of impressions; assembled: the answers to the reads.
    """

    def __init__(self, log: list[Event], answers: dict[Cause, Answer], reads: list[tuple[int, dict[str, np.ndarray], dict]],
                 ring_length: int) -> None:
        self.shard = FeatureShard(MemoryStore(), half_life_s=HALF_LIFE_S, ring_length=ring_length)  # type: ignore[arg-type]
        self.frozen: dict[Cause, tuple[bytes, bytes, bytes]] = {}
        self.assembled: list[dict[str, np.ndarray]] = [{} for _ in reads]
        waiting = sorted(range(len(reads)), key=lambda i: reads[i][0], reverse=True)
        for event in sorted(log, key=lambda e: (answers[e.cause].sequence, not answers[e.cause].retry)):
            while waiting and reads[waiting[-1]][0] <= self.shard.sequence:
                self._read(waiting.pop(), reads)
            answer = self.shard.freeze_and_fold(causes_of([event.cause]), columns_of([event]))
            if answer.values[0, 0]:
                self.frozen[event.cause] = (answer.keys.tobytes(), answer.values.tobytes(), answer.numbers.tobytes())
        while waiting:
            self._read(waiting.pop(), reads)

    def _read(self, i: int, reads: list[tuple[int, dict[str, np.ndarray], dict]]) -> None:
        self.assembled[i] = self.shard.assemble(**reads[i][1])._asdict()


def counts(samples: list[tuple[bytes, int]]) -> Counter[int]:
    """How often each key must have been counted, from (keys, times)."""
    total: Counter[int] = Counter()
    for keys, times in samples:
        for key in np.frombuffer(keys, np.uint64).tolist():
            total[key] += times
    return total
