"""The product as it is, and as it must not be: each ailment takes one part of the protocol away."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.features.frozen import Frozen
from headrace.features.layout import REPEATED
from headrace.features.shard import FeatureShard
from headrace.ps.shard import Shard
from headrace.rpc.causes import Causes, Rings


class Healthy:
    """Nothing is changed. `recovers`: rings and recovered bytes are judged too; of the others only what they count, freeze and answer.
    """

    feature_shard: type[FeatureShard] = FeatureShard
    recovers = True

    def opened(self, shard: Shard) -> None:
        """A parameter shard has been recovered."""

    def opened_features(self, shard: FeatureShard) -> None:
        """A feature shard has been recovered."""


class Ignorant(Rings):
    """Has never seen a cause."""

    def check_new(self, scope: str, effect: str, causes: Causes) -> np.ndarray:
        return np.zeros(len(causes), bool)


class CausesIgnored(Healthy):
    recovers = False

    def opened(self, shard: Shard) -> None:
        shard.rings = Ignorant(shard.rings.length)


class RingNotRestored(Healthy):
    """Rows come back, and what they were made of is forgotten."""

    recovers = False

    def opened(self, shard: Shard) -> None:
        shard.rings = Rings(shard.rings.length)


class LateLog:
    """Appends records four at a time: their pushes were acknowledged before."""

    GROUP = 4

    def __init__(self, log: Any) -> None:
        self._log, self._held = log, list[Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, *record: Any) -> None:
        self._held.append(record)
        if len(self._held) == self.GROUP:
            self._flush()

    def rotate(self, next_sequence: int) -> None:
        self._flush()
        self._log.rotate(next_sequence)

    def _flush(self) -> None:
        while self._held:
            self._log.append(*self._held.pop(0))


class AcknowledgedBeforeLog(Healthy):
    recovers = False

    def opened(self, shard: Shard) -> None:
        shard.log = LateLog(shard.log)  # type: ignore[assignment]


class LiveRows(FeatureShard):
    """Answers a repetition from the rows as they are now."""

    def _stored(self, causes: Causes) -> Frozen:
        then = super()._stored(causes)
        at = np.nonzero(then.values[:, 0])[0]
        if len(at):
            asked = [self.asked[cause] for cause in zip(causes.partition[at].tolist(), causes.offset[at].tolist(), strict=True)]
            user, item, ts_ms, context = (np.array(column) for column in zip(*asked, strict=True))
            now = self.assemble(user, item, context, ts_ms)
            then.keys[at], then.values[at], then.numbers[at] = now
        then.status[then.status != REPEATED + 1] = REPEATED
        return then

    def _block(self, causes: Causes, events: Any) -> Frozen:
        columns = zip(*(events[name] for name in ("user", "item", "ts_ms", "context")), strict=True)
        self.asked = dict(zip(zip(causes.partition.tolist(), causes.offset.tolist(), strict=True), columns, strict=True))
        return super()._block(causes, events)


class FrozenFromLiveRows(Healthy):
    feature_shard = LiveRows


AILMENTS: dict[str, type[Healthy]] = {kind.__name__: kind for kind in
                                      (CausesIgnored, RingNotRestored, AcknowledgedBeforeLog, FrozenFromLiveRows)}
