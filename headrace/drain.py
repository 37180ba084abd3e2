"""Waiting until a stream has drained through training, and saying which hop is stuck when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from headrace.replay import Sent
from headrace.taps import Mark, Taps, moved

STUCK_S = 60.0
QUIET_S = 3.0


class Stuck(Exception):
    """Nothing moves any more; the message names the hop. Look at `headrace status` and at the log of the job or role named."""


@dataclass(frozen=True)
class Progress:
    """How far the stream has come: offsets grown, dead letters, retries dropped, samples applied a shard; of `samples` one an exposure."""

    enriched: int
    samples: int
    dead_letters: int
    retries: int
    applied: tuple[int, ...]


def drain(sent: Sent, mark: Mark, taps: Taps, *, stuck_s: float = STUCK_S, poll_s: float = 0.2,
          moved_to: Callable[[Progress], Any] = lambda at: None, clock: Callable[[], float] = time.monotonic,
          sleep: Callable[[float], Any] = time.sleep) -> Progress:
    """Return when every shard has applied all impressions of `sent`, or all but dead letters and retries and nothing has moved for 3 s.

    Raises Stuck after `stuck_s` without any movement.
    """
    last, since = None, clock()
    while True:
        at = progress(mark, taps)
        moved_to(at)
        # Heartbeats grow `enriched` for ever: beyond what of ours can come there they are no movement.
        seen = replace(at, enriched=min(at.enriched, max(0, sent.interactions - at.retries - at.dead_letters)))
        if seen != last:
            last, since = seen, clock()
        still_s = clock() - since
        if min(at.applied, default=0) >= sent.impressions:
            return at
        if still_s >= QUIET_S and min(at.applied, default=0) + at.dead_letters + at.retries >= sent.impressions:
            return at
        if still_s >= stuck_s:
            raise Stuck(f"nothing has moved for {still_s:.0f} s: {hop(sent, at)}")
        sleep(poll_s)


def progress(mark: Mark, taps: Taps) -> Progress:
    """Where the stream is now."""
    grown = {topic: moved(taps.highs(topic), mark.offsets[topic]) for topic in ("enriched", "samples", "dead-letters")}
    applied = tuple(now - before for now, before in zip(taps.applied(), mark.applied, strict=True))
    return Progress(grown["enriched"], grown["samples"] // taps.targets, grown["dead-letters"], taps.retries() - mark.retries, applied)


def hop(sent: Sent, at: Progress) -> str:
    """The first hop that holds the stream back, in a sentence."""
    if at.enriched + at.dead_letters + at.retries < sent.interactions:
        return (f"the features job has passed on {at.enriched} of {sent.interactions} interactions "
                f"({at.dead_letters} dead letters, {at.retries} retries); `headrace jobs logs features`")
    if at.samples + at.dead_letters + at.retries < sent.impressions:
        return (f"the samples job has closed {at.samples} of {sent.impressions} impressions ({at.dead_letters} dead letters); "
                "its watermark may wait for a partition without heartbeats; `headrace jobs logs samples`")
    behind = [f"shard {shard} has applied {count}" for shard, count in enumerate(at.applied) if count < sent.impressions]
    return f"the train job: of {sent.impressions} samples {', '.join(behind)}; `headrace jobs logs train`"
