"""The caller's side of features/service.py: each verb as a method, retried while the service is away."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.features.backfilled import Part
from headrace.features.events import EventBatch
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.frozen import Frozen
from headrace.features.known_sets import KnownSets, Layout
from headrace.features.layout import FEATURE_SET
from headrace.features.readers import Readers
from headrace.features.seen import User
from headrace.rpc.causes import Causes
from headrace.rpc.client import Client

ROWS_MAX = 4096
NAMES_MAX = 8192
NAMES_KEPT = 1 << 18
_READ = ("assemble", "user")  # what a replica answers too


class Assembled(NamedTuple):
    """keys uint64[m,F], values float32[m,F], numbers float32[m,K] of m pairs; the shard's sequence when they were read; of which feature
    set they are; the features that a model is to read as their defaults."""

    keys: np.ndarray
    values: np.ndarray
    numbers: np.ndarray
    sequence: int
    feature_set: str = FEATURE_SET
    masked: tuple[str, ...] = ()


class FeatureClient:
    """Calls the feature service at `address`. Every verb may be repeated, so each is tried again for `deadline_s` seconds while nobody
    answers; then Unavailable is raised. Safe between threads, not across a fork. A service of another `feature_set` raises Refused.
    `masked`: features that are frozen to their defaults, as the newest answer said. `replicas`: addresses that are asked for samples
    and users first."""

    def __init__(self, address: str, *, deadline_s: float = 60.0, timeout_s: float = 30.0, feature_set: FeatureSet = BASE,
                 replicas: Sequence[str] = ()) -> None:
        self.set = feature_set
        self.masked: tuple[str, ...] = ()
        self._client = Client(address, timeout_s)
        self._replicas = Readers(replicas, timeout_s)
        self._deadline_s = deadline_s
        self._told: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def freeze_and_fold(self, causes: Causes, events: EventBatch | dict[str, np.ndarray]) -> Frozen:
        """Freeze and fold n events of n causes, in order; read-only arrays. Raises TooOld: stop the job; Unavailable after the deadline."""
        columns = events.columns if isinstance(events, EventBatch) else events
        parts = []
        for at in range(0, len(causes), ROWS_MAX):
            rows = slice(at, at + ROWS_MAX)
            arrays = {**causes.take(rows)._asdict(), **{name: columns[name][rows] for name in self.set.event_columns}}
            _, answer = self._call("freeze_and_fold", {"feature_set": self.set.name}, arrays)
            parts.append(Frozen(*(answer[name] for name in Frozen._fields)))
        if len(parts) == 1:
            return parts[0]
        return Frozen(*map(np.concatenate, zip(*parts, strict=True))) if parts else Frozen.empty(0, self.set.F, self.set.K)

    def assemble(self, user: np.ndarray, item: np.ndarray, context: np.ndarray, ts_ms: np.ndarray,
                 moment: np.ndarray | None = None) -> Assembled:
        """Samples of m pairs as they are now: user, item uint64[m] (0: none), context uint64[m,4] (0: no value), ts_ms int64[m], moment
        uint64[m,P] of the set's moments (0: none; None: none of all)."""
        arrays = {"user": user, "item": item, "context": context, "ts_ms": ts_ms}
        if self.set.moments:
            arrays["moment"] = np.zeros((len(user), len(self.set.moments)), np.uint64) if moment is None else moment
        header, answer = self._call("assemble", {"feature_set": self.set.name}, arrays)
        return Assembled(answer["keys"], answer["values"], answer["numbers"], header["sequence"], self.set.name,
                         tuple(header.get("masked", ())))

    def user(self, key: int) -> User:
        """What is known of the user whose row key is `key`."""
        header, answer = self._call("user", {}, {"user": np.array([key], np.uint64)})
        return User(header["found"], header["impressions"], header["clicks"], answer["recent"], answer["recent_clicked"])

    def popular(self, k: int) -> tuple[list[str], np.ndarray]:
        """(ids, decayed clicks float32) of at most k items, best first."""
        header, answer = self._call("popular", {"k": k}, {})
        return header["items"], answer["score"]

    def names(self, names: Iterable[str]) -> int:
        """Tell the service what keys mean ("field=value"). Callers offer all; what was told is not sent again. How many were sent."""
        with self._lock:
            return self._tell(names, self._told)

    def resolve(self, keys: np.ndarray) -> list[str | None]:
        """ "field=value" of keys uint64[n]; None for a key that was never told."""
        return self._call("resolve", {}, {"keys": np.asarray(keys, np.uint64)})[0]["names"]

    def totals(self, of: str, keys: np.ndarray) -> dict[str, np.ndarray]:
        """impressions, clicks, events int64[n] ever folded of users or items (`of`: user, item), by row key uint64[n]; 0 where unknown."""
        parts = [self._call("totals", {"of": of}, {"keys": keys[at : at + ROWS_MAX]})[1] for at in range(0, max(len(keys), 1), ROWS_MAX)]
        return {name: np.concatenate([part[name] for part in parts]) for name in ("impressions", "clicks", "events")}

    def held(self, of: str, key: int) -> dict[str, int]:
        """family -> rows of a user or an item (`of`) with this row key."""
        return dict(self._call("held", {"of": of}, {"keys": np.array([key], np.uint64)})[0]["rows"])

    def erase(self, of: str, key: int) -> dict[str, int]:
        """Delete them; how many there were."""
        return dict(self._call("erase", {"of": of}, {"keys": np.array([key], np.uint64)})[0]["rows"])

    def snapshot(self, name: str) -> tuple[str, int, str]:
        """Have the service make a copy of its store under `name`: (its folder on the service's host, events folded, feature set)."""
        said = self._call("snapshot", {"name": name}, {})[0]
        return said["path"], said["sequence"], said["feature_set"]

    def known(self) -> KnownSets:
        """The feature sets that the service has had, to make samples of them samples of this client's."""
        sets = self._call("sets", {}, {})[0]["sets"]
        return KnownSets(self.set, [Layout(name, tuple(slots), tuple(numbers)) for name, slots, numbers in sets])

    def masks(self) -> dict[str, Any]:
        """features.masks.Masks.told."""
        return self._call("masks", {}, {})[0]

    def decide(self, decision: str, feature: str, by: str, why: str) -> bool:
        """features.masks.Masks.decide. Raises Refused for what is no feature."""
        return bool(self._call("decide", {"decision": decision, "feature": feature, "by": by, "why": why}, {})[0]["changed"])

    def backfills(self) -> dict[str, Any]:
        """sequence: of the shard; definitions: features.backfilled.Backfills.told."""
        return self._call("backfills", {}, {})[0]

    def merge_states(self, part: Part) -> dict[str, Any]:
        """Put a part of a backfill in, once: next (the part that comes next), or unsure: how many states of it have come further than their
        time to live from `reach`; sequence. Raises Refused."""
        header = {"feature_set": self.set.name, "definition": part.identity, "digest": part.digest, "part": part.number,
                  "parts": part.parts, "before": part.before, "about": part.about}
        arrays = {name: getattr(part, name) for name in ("keys", "newest", "reach", "states")}
        return self._call("merge_states", header, arrays)[0]

    def stats(self) -> dict[str, Any]:
        """users, items, sequence, applied, duplicates, retries, bytes."""
        return self._call("stats", {}, {})[0]

    def close(self) -> None:
        self._client.close()
        self._replicas.close()

    def _call(self, verb: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        found = self._replicas.call(verb, header, arrays) if verb in _READ else None
        said, answer = found or self._client.call_until(self._deadline_s, verb, header, arrays)
        if "masked" in said:
            self.masked = tuple(said["masked"])
        return said, answer

    def _tell(self, names: Iterable[str], told: OrderedDict[str, None]) -> int:
        new = []
        for name in names:
            if name in told:
                told.move_to_end(name)
            else:
                new.append(name)
        for at in range(0, len(new), NAMES_MAX):
            part = new[at : at + NAMES_MAX]
            self._call("names", {"names": part}, {})
            told.update(dict.fromkeys(part))
        while len(told) > NAMES_KEPT:
            told.popitem(last=False)
        return len(new)
