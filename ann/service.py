"""The vector index as a service: the verbs, the fold of `vectors`, and what is checked at the door."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from headrace.ann.index import Space
from headrace.rpc.errors import Refused
from headrace.rpc.freshness import Hop, Newest, newer, to_header
from headrace.rpc.message import Arrays, Header, column
from headrace.rpc.server import Verb

log = logging.getLogger(__name__)

K_MAX = 1000
QUERIES_MAX = 1024
EXCLUDE_MAX = 10_000
ID_BYTES_MAX = 256
MAGNITUDE_MAX = 1e15  # beyond it an inner product could overflow float32
DIM_MAX = 4096


class Service:
    """Spaces by name. Every method runs in its turn at the owner.

    `dim`: floats a vector of every space; 0: the first vector of a space says. Freshness: gauge headrace_ann_newest_ts_ms, `newest` cause
    by space in every answer, and `hop`, which is told of each.
    """

    def __init__(self, dim: int = 0, registry: CollectorRegistry = REGISTRY, hop: Hop | None = None) -> None:
        self.spaces: dict[str, Space] = {}
        self.newest: dict[str, Newest] = {}
        self._hop = hop
        self.newest_ts_ms = 0
        self._dim = dim
        self._rows = Gauge("headrace_ann_rows", "Live vectors.", ["space"], registry=registry)
        self._sequence = Gauge("headrace_ann_sequence", "Highest sequence folded.", ["space"], registry=registry)
        self._newest = Gauge("headrace_ann_newest_ts_ms", "When the newest folded vector was made, ms since 1970.", registry=registry)
        self._folded = Counter("headrace_ann_vectors", "Vectors and deletes: applied, older, refused.", ["outcome"], registry=registry)
        self._searched = Histogram("headrace_ann_search_seconds", "Time of a search in its turn.", registry=registry,
                                   buckets=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1))

    def verbs(self) -> dict[str, Verb]:
        """For rpc.server.Server."""
        return {"upsert": self.upsert, "search": self.search, "nearest": self.nearest, "stats": self.stats}

    def upsert(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Vectors and deletes of one space; all are checked before any is applied. `applied` counts those not older than what is held."""
        space, ids = _text(header, "space"), _texts(header, "ids", ID_BYTES_MAX)
        deleted = header.get("deleted") or [False] * len(ids)
        vectors = column(arrays, "vectors", "float32", (len(ids), None))
        sequence = column(arrays, "sequence", "int64", (len(ids),))
        if not isinstance(deleted, list) or len(deleted) != len(ids):
            raise Refused("deleted: a list of booleans, one an id")
        if not all(ids):
            raise Refused("ids: an empty id")
        if len(sequence) and int(sequence.min()) < 0:
            raise Refused("sequence: a negative one")
        live = ~np.array(deleted, bool)
        if live.any():
            self._check(space, vectors[live])
        applied = sum(self._apply(space, *row) for row in zip(ids, deleted, vectors, sequence.tolist(), strict=True))
        self._measure(applied, len(ids) - applied)
        return {"applied": applied}, {}

    def search(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """The k best ids for each query vector; a space that has no vectors yet answers empty lists."""
        k, exclude = _k(header), _texts(header, "exclude", ID_BYTES_MAX)
        if len(exclude) > EXCLUDE_MAX:
            raise Refused(f"exclude: {len(exclude)} ids; the limit is {EXCLUDE_MAX}")
        vectors = column(arrays, "vectors", "float32", (None, None))
        if len(vectors) > QUERIES_MAX:
            raise Refused(f"vectors: {len(vectors)} queries in a call; the limit is {QUERIES_MAX}")
        self._check(_text(header, "space"), vectors)
        return self._answer(_text(header, "space"), vectors, k, exclude)

    def nearest(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """The k best ids of `space` for the vector of `id` in `of`; the id is left out of its own space. `found`: the id is known."""
        k, of, name, answer_in = _k(header), _text(header, "of"), _text(header, "id"), _text(header, "space")
        space = self.spaces.get(of)
        vector = space.vector(name) if space is not None else None
        if vector is None:
            return {"found": False, "ids": [], "sequence": -1}, {"scores": np.empty(0, np.float32)}
        header, arrays = self._answer(answer_in, vector[None], k, [name] if answer_in == of else [])
        return {**header, "found": True, "ids": header["ids"][0]}, {"scores": arrays["scores"][0]}

    def stats(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Rows, dimension and highest sequence by space; `newest_ts_ms` of what was folded."""
        by_space = {name: {"rows": len(space), "dim": space.dim, "sequence": space.sequence} for name, space in self.spaces.items()}
        return {**by_space, "newest_ts_ms": self.newest_ts_ms}, {}

    def fold_many(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Fold `vectors` records (schemas/vectors.avsc) in order; how many were applied. Absolute values: folding a tail twice changes
        nothing. A record that cannot be used is counted, logged and left out: the topic goes on."""
        applied = older = refused = 0
        for record in records:
            try:
                vector = np.frombuffer(record["vector"], "<f4")
                if not record["deleted"]:
                    self._check(record["space"], vector[None])
                done = self._apply(record["space"], record["id"], record["deleted"], vector, record["sequence"])
                applied, older = applied + done, older + (not done)
                self.newest_ts_ms = max(self.newest_ts_ms, record["ts_ms"])
                self._note(record)
            except (Refused, ValueError, KeyError, TypeError) as error:
                refused += 1
                log.warning("a vector of %.80r is left out: %s", record.get("id"), error)
        self._measure(applied, older, refused)
        return applied

    def _apply(self, space: str, name: str, deleted: bool, vector: np.ndarray, sequence: int) -> bool:
        held = self.spaces.get(space)
        if held is None:
            if deleted and not self._dim:
                return False  # nothing is known of a space yet whose dimension the first vector says
            held = self.spaces[space] = Space(self._dim or len(vector))
        return held.delete(name, sequence) if deleted else held.upsert(name, vector, sequence)

    def _note(self, record: Mapping[str, Any]) -> None:
        """The newest cause behind the vectors of a space; an older writer names none."""
        if record.get("caused_ms") is None:
            return
        newest = Newest(record["source"], record["partition"], record["offset"], record["caused_ms"])
        self.newest[record["space"]] = newer(self.newest.get(record["space"]), newest) or newest
        if self._hop is not None:
            self._hop.observe(newest)

    def _answer(self, space: str, vectors: np.ndarray, k: int, exclude: list[str]) -> tuple[Header, Arrays]:
        held = self.spaces.get(space)
        if held is None:
            return {"ids": [[] for _ in vectors], "sequence": -1}, {"scores": np.empty((len(vectors), 0), np.float32)}
        if vectors.shape[1] != held.dim:
            raise Refused(f"vectors: {vectors.shape[1]} floats; space {space!r} has {held.dim}")
        started = time.perf_counter()
        ids, scores = held.search(vectors, k, exclude)
        self._searched.observe(time.perf_counter() - started)
        return {"ids": ids, "sequence": held.sequence, "newest": to_header(self.newest.get(space))}, {"scores": scores}

    def _check(self, space: str, vectors: np.ndarray) -> None:
        held = self.spaces.get(space)
        dim = held.dim if held is not None else self._dim
        if (dim and vectors.shape[1] != dim) or not 1 <= vectors.shape[1] <= DIM_MAX:
            raise Refused(f"vectors: {vectors.shape[1]} floats; space {space!r} has {dim or f'1 to {DIM_MAX}'}")
        if not (np.abs(vectors) <= MAGNITUDE_MAX).all():  # false for NaN too
            raise Refused(f"vectors: a number is NaN or beyond {MAGNITUDE_MAX:g}")

    def _measure(self, applied: int, older: int, refused: int = 0) -> None:
        for outcome, count in (("applied", applied), ("older", older), ("refused", refused)):
            self._folded.labels(outcome).inc(count)
        for name, space in self.spaces.items():
            self._rows.labels(name).set(len(space))
            self._sequence.labels(name).set(space.sequence)
        self._newest.set(self.newest_ts_ms)


def _k(header: Header) -> int:
    k = header.get("k")
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= K_MAX:
        raise Refused(f"k: {k!r:.40}; a whole number from 1 to {K_MAX}")
    return k


def _text(header: Header, name: str) -> str:
    text = header.get(name)
    if not isinstance(text, str) or not text or len(text.encode()) > ID_BYTES_MAX:
        raise Refused(f"{name}: {text!r:.40}; text of 1 to {ID_BYTES_MAX} bytes")
    return text


def _texts(header: Header, name: str, bytes_max: int) -> list[str]:
    texts = header.get(name) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and len(text.encode()) <= bytes_max for text in texts):
        raise Refused(f"{name}: a list of texts of at most {bytes_max} bytes")
    return texts
