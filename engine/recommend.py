"""Recall, filter, rank, output: one recommendation, and its parts as calls of their own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from headrace.ann.client import Nearest
from headrace.engine.clock import Clock
from headrace.engine.explain import contributions, numbers, seen, state, told
from headrace.engine.exposures import Keyed, event_id, impressions
from headrace.engine.ranking import Ranker
from headrace.engine.upstream import Upstream
from headrace.features.layout import ITEM_ID
from headrace.models.fields import USER as USER_SIDE
from headrace.rpc.freshness import Newest
from headrace.schemas.hashing import feature_key

RECALL_MAX = 1000
USER, ITEM = "user", "item"


class Vectors(Protocol):
    """ann.client.AnnClient."""

    def search(self, space: str, vectors: np.ndarray, k: int, exclude: Sequence[str] = ()) -> tuple[list[list[str]], np.ndarray, int]: ...

    def nearest(self, space: str, of: str, name: str, k: int) -> Nearest: ...

    def stats(self) -> dict[str, Any]: ...


class Candidate(NamedTuple):
    """An item that a recall source gave, at which place and with which score there."""

    item: str
    source: str
    position: int
    score: float


class Engine:
    """Answers as dictionaries that are JSON. `sink(records)` takes impressions and returns at once; `served` is told the newest cause that
    each recommendation has seen.

    All calls raise the errors of rpc/errors.py: Unavailable when a service below does not answer.
    """

    def __init__(self, upstream: Upstream, vectors: Vectors, ranker: Ranker, clock: Clock, sink: Callable[[list[Keyed]], Any],
                 candidates: int = 200, served: Callable[[Newest | None], Any] = lambda newest: None) -> None:
        self.clock, self.candidates, self._served = clock, candidates, served
        self._upstream, self._vectors, self._ranker, self._sink = upstream, vectors, ranker, sink

    def recommend(self, user: str, n: int, scene: str, context: Mapping[str, str], explain: bool = False,
                  preview: bool = False) -> dict[str, Any]:
        """The n best unread items for the user by probability. A user or an index that has no vectors yet: popular items, in their order,
        under "fallback": "popular". "seen": how many near or popular items were left out since the user has seen them. `preview` leaves no
        trace: no impressions are sent."""
        ts_ms = self.clock.peek() if preview else self.clock.use()
        request_id = uuid.uuid4().hex
        pool, fallback, left_out = self._pool(user, n)
        answer: dict[str, Any] = {"request_id": request_id, "user": user, "scene": scene, "ts_ms": ts_ms, "fallback": fallback,
                                  "preview": preview, "seen": left_out, "items": []}
        if not pool:
            answer["reason"] = "all_seen" if left_out else "nothing_known"
            return answer
        ranked = self._ranker.score(user, [candidate.item for candidate in pool], context, ts_ms, scene)
        order = range(len(pool)) if fallback else np.argsort(-ranked.probabilities, kind="stable").tolist()
        top = list(order)[:n]
        scores = ranked.probabilities
        answer["items"] = [{"item_id": pool[i].item, "position": place, "score": float(scores[i])} for place, i in enumerate(top)]
        if not preview:
            for place, row in enumerate(answer["items"]):
                row["event_id"] = event_id(request_id, place)
        answer |= state(ranked, self._upstream.model)
        self._served(ranked.weights.newest)
        if explain:
            why = contributions(ranked, top, self._ranker.model, self._ranker.inputs, self._upstream)
            for row, i, slots in zip(answer["items"], top, why, strict=True):
                came = pool[i]
                row["explain"] = {"recall": {"source": came.source, "position": came.position, "score": came.score}, "slots": slots}
        if not preview:
            self._sink(impressions(ranked, top, request_id, user, scene, context, ts_ms, self._upstream.model))
        return answer

    def recall(self, user: str, k: int) -> dict[str, Any]:
        """The k items nearest to the user's vector, unfiltered; `found` False for a user without one."""
        return {"user": user, **_listed(self._vectors.nearest(ITEM, USER, user, k))}

    def recall_users(self, users: Sequence[str], k: int) -> dict[str, Any]:
        """`recall` of each user, in order."""
        return {"results": [self.recall(user, k) for user in users]}

    def recall_vectors(self, vectors: np.ndarray, k: int) -> dict[str, Any]:
        """The k items nearest to each vector float32[q,d]. Raises Refused for a wrong dimension or NaN."""
        ids, scores, sequence = self._vectors.search(ITEM, vectors, k)
        return {"results": [{"items": _rows(row, s), "sequence": sequence} for row, s in zip(ids, scores, strict=True)]}

    def similar(self, item: str, k: int) -> dict[str, Any]:
        """The k items nearest to the item's vector, without itself; `found` False for an item without one."""
        return {"item": item, **_listed(self._vectors.nearest(ITEM, ITEM, item, k))}

    def score(self, user: str, items: Sequence[str], context: Mapping[str, str], ts_ms: int | None) -> dict[str, Any]:
        """Probabilities of the items given, in their order; no trace is left. `ts_ms` fixes the time that features are read at. "found" of
        an item: whether the model has learnt of it; else its score is that of any item it has not met."""
        at_ms = self.clock.peek() if ts_ms is None else ts_ms
        ranked = self._ranker.score(user, items, context, at_ms)
        found = ranked.weights.rows[ranked.index[:, ITEM_ID], 0] != 0  # a row that nobody has pushed begins there with 0
        rows = [{"item_id": item, "score": float(p), "found": bool(f)}
                for item, p, f in zip(items, ranked.probabilities, found, strict=True)]
        return {"user": user, "ts_ms": at_ms, "items": rows, **state(ranked, self._upstream.model)}

    def features(self, user: str, item: str, context: Mapping[str, str], ts_ms: int | None) -> dict[str, Any]:
        """What the ranker sees of the two; no trace is left. `ts_ms` fixes the time that features are read at."""
        at_ms = self.clock.peek() if ts_ms is None else ts_ms
        keys = np.array([feature_key("item_id", item)], np.uint64)
        assembled = self._upstream.assemble(feature_key("user_id", user), keys, context, at_ms)
        return {"user": user, "item": item, "ts_ms": at_ms, "slots": seen(assembled, 0, self._upstream),
                "numbers": numbers(assembled, 0, self._upstream), "features_sequence": assembled.sequence}

    @property
    def of_user(self) -> frozenset[str]:
        """Slots of the feature set that are the user's side."""
        held = self._upstream.features.set
        return frozenset(slot for slot, side in zip(held.slots, held.side.tolist(), strict=True) if side == USER_SIDE)

    def missing(self) -> str:
        """"" when everything below answers, else what does not."""
        try:
            self._upstream.reach()
            self._vectors.stats()
        except Exception as error:
            return str(error)
        return ""

    def _pool(self, user: str, n: int) -> tuple[list[Candidate], str | None, int]:
        """Unread candidates, by nearness, filled up with popular items to n; "popular" when nothing is near; items left out as read."""
        read = self._upstream.read(feature_key("user_id", user))
        near = self._vectors.nearest(ITEM, USER, user, min(RECALL_MAX, self.candidates + len(read)))
        found = [Candidate(item, "ann", i, float(s)) for i, (item, s) in enumerate(zip(near.ids, near.scores, strict=True))]
        pool = [candidate for candidate in found if feature_key("item_id", candidate.item) not in read][: self.candidates]
        out = {candidate.item for candidate in found if feature_key("item_id", candidate.item) in read}
        if len(pool) < n:
            ids, scores = self._upstream.features.popular(min(RECALL_MAX, n + len(read) + len(pool)))
            taken = {candidate.item for candidate in pool}
            more = [Candidate(item, "popular", i, float(s)) for i, (item, s) in enumerate(zip(ids, scores, strict=True))
                    if item not in taken and feature_key("item_id", item) not in read]
            pool += more[: n - len(pool)]
            out |= {item for item in ids if feature_key("item_id", item) in read}
        return pool, None if found else "popular", len(out)


def _listed(near: Nearest) -> dict[str, Any]:
    return {"found": near.found, "items": _rows(near.ids, near.scores), "sequence": near.sequence, "newest": told(near.newest)}


def _rows(ids: Sequence[str], scores: np.ndarray) -> list[dict[str, Any]]:
    return [{"item_id": item, "score": float(score)} for item, score in zip(ids, scores, strict=True)]
