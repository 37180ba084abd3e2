"""The verbs of a feature shard, as docs/architecture.md states them: one check at the door, trust inside."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headrace.features.backfilled import BackfillRefused, Part
from headrace.features.followed import ALONE, Followed
from headrace.features.layout import CONTEXT_FIELDS
from headrace.features.masks import MaskError, Masks
from headrace.features.shard import FeatureShard
from headrace.rpc.causes import Causes
from headrace.rpc.errors import BadMessage, Refused, Unavailable
from headrace.rpc.message import Arrays, Header, column
from headrace.rpc.server import Later, Verb
from headrace.schemas.hashing import feature_key

log = logging.getLogger(__name__)
NAME_CHARACTERS_MAX = 4096
NAMES_MAX = 16_384
TS_MS_MAX = 1 << 48
BLOCK_BESIDE_READERS, READING_S = 256, 1.0  # events that a reader waits for, about 1 ms, while anybody reads
_STATUS = ("folded", "repeated", "retry")


class FeatureService:
    """Verbs over one shard; each runs in its turn at the shard's owner. `registry` holds the metrics. `give_way`: called between two blocks
    of a fold, so that readers wait for a block and not for all of it."""

    def __init__(self, shard: FeatureShard, give_way: Callable[[], None] = lambda: None) -> None:
        self.masks = Masks(shard.store, shard.set)
        self._followed = Followed(shard, lambda: self.masks.names).verbs() if shard.tail is not None else ALONE
        self._begin(lambda: shard, lambda: self.masks.names, give_way)
        expired = Gauge("headrace_features_expired", "Rows deleted because nobody had an event for too long.", ["family"],
                        registry=self.registry)
        for name in shard.swept:
            expired.labels(name).set_function(partial(self._count, f"expired {name}"))

    def _begin(self, now: Callable[[], FeatureShard], masked: Callable[[], list[str]], give_way: Callable[[], None]) -> None:
        """`now`: the shard; `masked`: the features that are frozen to their defaults."""
        self._now, self._masked, self._give_way = now, masked, give_way
        self._read_s = -READING_S  # when somebody read last
        self.registry = CollectorRegistry()
        self._events = Counter("headrace_features_events_total", "Events by status.", ["status"], registry=self.registry)
        self._seconds = Histogram("headrace_features_call_seconds", "Seconds of a call in its turn.", ["verb"], registry=self.registry,
                                  buckets=(.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 2))
        for name in ("sequence", "users", "items", "late", "out_of_order"):
            gauge = Gauge(f"headrace_features_{name}", f"Count of {name.replace('_', ' ')}.", registry=self.registry)
            gauge.set_function(partial(self._count, name))

    @property
    def shard(self) -> FeatureShard:
        return self._now()

    def verbs(self) -> Mapping[str, Verb]:
        verbs = {"freeze_and_fold": self._freeze_and_fold, "names": self._names, "assemble": self._assemble, "user": self._user,
                 "popular": self._popular, "resolve": self._resolve, "totals": self._totals, "sets": self._sets, "stats": self._stats,
                 "masks": self._told_masks, "decide": self._decide, "held": self._held, "erase": self._erase,
                 "snapshot": self._snapshot, "backfills": self._backfills, "merge_states": self._merge_states}
        return self._each_timed({**verbs, **self._followed})

    def _each_timed(self, verbs: Mapping[str, Verb]) -> Mapping[str, Verb]:
        return {name: self._timed(name, verb) for name, verb in verbs.items()}

    def _count(self, name: str) -> float:
        return self.shard.counts.get(name, 0)

    def _timed(self, name: str, verb: Verb) -> Verb:
        seconds = self._seconds.labels(name)

        def run(header: Header, arrays: Arrays) -> tuple[Header, Arrays] | Later:
            start = time.perf_counter()
            try:
                return verb(header, arrays)
            finally:
                seconds.observe(time.perf_counter() - start)

        return run

    def _freeze_and_fold(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        self._known(header)
        causes = Causes(column(arrays, "source", "int32", (None,)), column(arrays, "partition", "int32", (None,)),
                        column(arrays, "offset", "int64", (None,)))
        events = {name: column(arrays, name, *kind) for name, kind in self.shard.set.event_columns.items()}
        n = len(causes)
        if any(len(array) != n for array in (*causes, *events.values())):
            raise BadMessage(f"arrays of different lengths: {sorted({len(array) for array in (*causes, *events.values())})}")
        if n and min(int(part.min()) for part in causes) < 0:
            raise BadMessage("a cause has a negative source, partition or offset")
        if n and not (events["user"].all() and events["item"].all()):
            raise BadMessage("an event has user or item 0: heartbeats are not folded")
        _moments(events["ts_ms"])
        block = BLOCK_BESIDE_READERS if time.monotonic() - self._read_s < READING_S else 0
        frozen = self.shard.freeze_and_fold(causes, events, self._give_way, block)
        for status, count in enumerate(np.bincount(frozen.status, minlength=3).tolist()):
            self._events.labels(_STATUS[status]).inc(count)
        return {"sequence": self.shard.sequence, "masked": self._masked()}, frozen._asdict()

    def _assemble(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        self._known(header)
        user = column(arrays, "user", "uint64", (None,))
        item, ts_ms = column(arrays, "item", "uint64", (len(user),)), column(arrays, "ts_ms", "int64", (len(user),))
        context = column(arrays, "context", "uint64", (len(user), CONTEXT_FIELDS))
        moment = None
        if self.shard.set.moments:
            moment = column(arrays, "moment", "uint64", (len(user), len(self.shard.set.moments)))
        _moments(ts_ms)
        self._read_s = time.monotonic()
        assembled = self.shard.assemble(user, item, context, ts_ms, moment)
        return {"sequence": self.shard.sequence, "masked": self._masked()}, assembled._asdict()

    def _known(self, header: Header) -> None:
        mine, wanted = self.shard.set.name, header.get("feature_set", self.shard.set.name)
        if wanted != mine:
            raise Refused(f"feature set {wanted!r} is not served here; known: {mine} (processes and jobs are started with the same files in"
                          " [features] definitions)")

    def _names(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        names = header.get("names")
        if not isinstance(names, list) or len(names) > NAMES_MAX:
            raise BadMessage(f"names is no list of at most {NAMES_MAX} texts")
        for name in names:
            if not isinstance(name, str) or "=" not in name or len(name) > NAME_CHARACTERS_MAX:
                raise BadMessage(f"a name is no text field=value of at most {NAME_CHARACTERS_MAX} characters: {str(name)[:80]!r}")
        self.shard.store.put_names((feature_key(*name.split("=", 1)) for name in names), names)
        return {}, {}

    def _user(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        user = self.shard.user(int(column(arrays, "user", "uint64", (1,))[0]))
        return ({"found": user.found, "impressions": user.impressions, "clicks": user.clicks},
                {"recent": user.recent, "recent_clicked": user.recent_clicked})

    def _popular(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        k = header.get("k")
        if not isinstance(k, int) or k < 0:
            raise BadMessage(f"k is {k!r}, expected a number of items")
        items, score = self.shard.popular.top(k)
        ids = [name and name.split("=", 1)[1] for name in self.shard.store.names(items)]
        named = np.array([one is not None for one in ids], bool)
        return {"items": [one for one in ids if one is not None]}, {"score": score[named]}

    def _resolve(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        return {"names": self.shard.store.names(column(arrays, "keys", "uint64", (None,)))}, {}

    def _totals(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        return {"sequence": self.shard.sequence}, self.shard.totals(_of(header), column(arrays, "keys", "uint64", (None,)))

    def _held(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        return {"rows": self.shard.held(*_whose(header, arrays))}, {}

    def _erase(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        return {"rows": self.shard.erase(*_whose(header, arrays)), "sequence": self.shard.sequence}, {}

    def _snapshot(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        name, shard = header.get("name"), self.shard
        if not (isinstance(name, str) and re.fullmatch(r"[0-9A-Za-z-]{1,40}", name)):
            raise BadMessage(f"name is {name!r}, expected letters, digits and hyphens, at most 40")
        folder = shard.store.path.with_name(f"{shard.store.path.name}-snapshots") / name
        shard.flush()
        try:
            shard.store.checkpoint(folder)
        except Exception as error:
            raise Unavailable(f"no snapshot can be made at {folder}: {error}") from None
        return {"path": str(folder.resolve()), "sequence": shard.sequence, "feature_set": shard.set.name}, {}

    def _sets(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        return {"sets": [list(layout) for layout in self.shard.layouts]}, {}

    def _told_masks(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        return {"masked": self.masks.names, **self.masks.told()}, {}

    def _decide(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        said = [header.get(key) for key in ("decision", "feature", "by", "why")]
        if not all(isinstance(one, str) for one in said):
            raise BadMessage(f"decision, feature, by and why are texts; here they are {said}")
        decision, feature, by, why = map(str, said)
        try:
            changed = self.masks.decide(decision, feature, by, why, int(time.time() * 1000))
        except MaskError as error:
            raise Refused(str(error)) from None
        if changed:
            log.warning("%s %s by %s: %s", decision, feature, by, why)
        return {"changed": changed, "masked": self.masks.names}, {}

    def _backfills(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        return {"sequence": self.shard.sequence, "definitions": self.shard.backfills.told}, {}

    def _merge_states(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        self._known(header)
        identity, number, parts, before = (header.get(key) for key in ("definition", "part", "parts", "before"))
        about, digest = header.get("about"), header.get("digest")
        words = {one.identity: int(self.shard.set.words[d]) for d, one in enumerate(self.shard.set.all)}.get(str(identity), 1)
        if not isinstance(number, int) or not isinstance(parts, int) or not isinstance(before, int) or not 0 <= number < parts:
            raise BadMessage(f"part {number!r} of {parts!r}, before {before!r}: whole numbers, a part below their count")
        if not isinstance(about, dict) or not isinstance(digest, str) or not {"events", "source"} <= about.keys():
            raise BadMessage("digest is a text, and about says events and source")
        keys = column(arrays, "keys", "uint64", (None,))
        n = len(keys)
        if n and (keys[0] == 0 or not (keys[1:] > keys[:-1]).all()):
            raise BadMessage("keys are row keys, ascending")
        part = Part(str(identity), digest, number, parts, before, about, keys, column(arrays, "newest", "float64", (n,)),
                    column(arrays, "reach", "float64", (n,)), column(arrays, "states", "uint64", (n, words)))
        try:
            return {"sequence": self.shard.sequence, **self.shard.merge_states(part)}, {}
        except BackfillRefused as error:
            raise Refused(str(error)) from None

    def _stats(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        return {**self.shard.counts, "duplicates": self.shard.duplicates, "bytes": self.shard.store.bytes_held(),
                "families": self.shard.families(),
                "feature_set": self.shard.set.name, "frozen_bytes": 2 + 12 * self.shard.set.F + 4 * self.shard.set.K}, {}


def _of(header: Header) -> str:
    of = header.get("of")
    if of not in ("user", "item"):
        raise BadMessage(f"of is {of!r}, expected user or item")
    return str(of)


def _whose(header: Header, arrays: Arrays) -> tuple[str, int]:
    return _of(header), int(column(arrays, "keys", "uint64", (1,))[0])


def _moments(ts_ms: np.ndarray) -> None:
    if len(ts_ms) and not (ts_ms.min() >= 0 and ts_ms.max() < TS_MS_MAX):
        raise BadMessage("a ts_ms is no time in milliseconds since 1970")
