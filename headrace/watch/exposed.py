"""Impressions that are watched: a share of them, scored when they come out of the features job, kept until their samples settle."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from headrace.models.batch import Batch
from headrace.models.inputs import Inputs
from headrace.models.progressive import sampled

Cause = tuple[int, int, int]
Records = Sequence[tuple[int, Mapping[str, Any]]]
"""Append time at the broker in ms, decoded record."""
PENDING_MAX = 100_000
S = TypeVar("S")
H = TypeVar("H")


class Rate:
    """At most `rate_max` a second of `clock_s`; a second's worth may come at once."""

    def __init__(self, rate_max: float, clock_s: Callable[[], float]) -> None:
        self._rate_max, self._clock_s = rate_max, clock_s
        self._left, self._filled_s = rate_max, clock_s()

    def taken(self, wanted: int) -> int:
        """How many of so many may be taken now."""
        now_s = self._clock_s()
        self._left = min(self._rate_max, self._left + (now_s - self._filled_s) * self._rate_max)
        self._filled_s = now_s
        found = min(wanted, int(self._left))
        self._left -= found
        return found


class Share:
    """The impressions that are watched: `share` of the causes, chosen by hash, at most `rate_max` a second of `clock_s`."""

    def __init__(self, share: float, rate_max: float, clock_s: Callable[[], float]) -> None:
        self._share, self._rate = share, Rate(rate_max, clock_s)

    def chosen(self, records: Records) -> tuple[list[Mapping[str, Any]], int]:
        """Those with features among `records` of `enriched`, and how many the rate did not leave; a second's worth may come at once."""
        shown = [record for _, record in records if record["action"] == "impression" and record["feature_keys"]]
        if not shown:
            return [], 0
        source, partition, offset = (np.array(column) for column in zip(*map(cause_of, shown), strict=True))
        of_share = sampled(source, partition, offset, self._share)
        found = [record for record, wanted in zip(shown, of_share, strict=True) if wanted]
        taken = found[: self._rate.taken(len(found))]
        return taken, len(found) - len(taken)


class Exposed(Generic[S, H]):
    """The watched impressions, and what is kept of each under its cause, PENDING_MAX at most. `score(batch)` gives S of some of them.
    `outcomes`: scored; capped by the rate; failed, when `score` raised; late, scored after the sample stood. `masked()`: features
    that the model reads as their defaults. Who calls `keep` and `settled` from two threads holds a lock."""

    def __init__(self, score: Callable[[Batch], S], share: Share, inputs: Inputs, target: str,
                 masked: Callable[[], Sequence[str]] = tuple) -> None:
        self._score, self._share, self._inputs, self._target, self._masked = score, share, inputs, target, masked
        self._waiting: OrderedDict[Cause, tuple[int, H]] = OrderedDict()
        self.outcomes = Counter(scored=0, capped=0, failed=0, late=0)

    def scored(self, records: Records) -> tuple[list[Mapping[str, Any]], Batch, S] | None:
        """The watched ones of `enriched`, their inputs, and what was said of them; None for none. Raises what `score` raises, and counts
        it."""
        chosen, capped = self._share.chosen(records)
        self.outcomes["capped"] += capped
        if not chosen:
            return None
        keys, values, numbers = ([record[name] for record in chosen] for name in ("feature_keys", "feature_values", "numbers"))
        batch = self._inputs.batch(keys, values, numbers, masked=self._masked())
        try:
            return chosen, batch, self._score(batch)
        except Exception:
            self.outcomes["failed"] += len(chosen)
            raise

    def keep(self, record: Mapping[str, Any], scored_ms: int, held: H) -> None:
        self._waiting[cause_of(record)] = scored_ms, held
        while len(self._waiting) > PENDING_MAX:
            self._waiting.popitem(last=False)

    def settled(self, records: Records) -> Iterator[tuple[H, bool, bool]]:
        """(what was kept, label, whether it was scored after its sample stood) of each exposure of `samples` that was kept, once."""
        for appended_ms, record in records:
            found = self._waiting.pop(cause_of(record), None) if record["target"] == self._target else None
            if found is not None:
                late = found[0] > appended_ms
                self.outcomes["late" if late else "scored"] += 1
                yield found[1], bool(record["label"] >= 0.5), late


def cause_of(record: Mapping[str, Any]) -> Cause:
    return record["source"], record["partition"], record["offset"]
