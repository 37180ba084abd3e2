"""Enriched records as columns, and as the bytes that go to the topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.frozen import Frozen
from headrace.rpc.causes import Causes
from headrace.schemas.kernels import END, EXPOSURE, HEAD, VALUE_END
from headrace.streaming import kernels
from headrace.streaming.scanned import Scanned

_FRAME = 180  # bytes of a record beside its texts and features: header, causes, times, lengths, score
_NONE = np.frombuffer(b"", np.uint8)  # read-only like any other name: one compiled kernel


class Scores(NamedTuple):
    """Probabilities float32[m] of `rows` int64[m], by `model` with weights of sequence `version`."""

    rows: np.ndarray
    probability: np.ndarray
    model: str
    version: int


@dataclass
class Enriched:
    """k records of `rows` int64[k] of a scan: causes, ts_ms int64[k], sequence int64[k], folded int64[k] (the sequence of an event, -1 of a
    heartbeat), newest_ms int64[k] (event time, of its partition so far), kept bool[k] (False: not written), frozen uint8[k] with features
    (answer's row at[k]), score float64[k] (NaN: none) by model and version."""

    rows: np.ndarray
    causes: Causes
    ts_ms: np.ndarray
    sequence: np.ndarray
    folded: np.ndarray
    newest_ms: np.ndarray
    kept: np.ndarray
    frozen: np.ndarray
    features: Frozen
    at: np.ndarray
    scores: np.ndarray
    model: str = ""
    version: int = 0

    @classmethod
    def empty(cls, rows: np.ndarray, causes: Causes, ts_ms: np.ndarray) -> Enriched:
        k = len(rows)
        return cls(rows, causes, ts_ms, np.zeros(k, np.int64), np.full(k, -1, np.int64), np.zeros(k, np.int64),
                   np.ones(k, bool), np.zeros(k, np.uint8), Frozen.empty(0), np.zeros(k, np.int64), np.full(k, np.nan))

    def take(self, events: np.ndarray, answer: Frozen, frozen: np.ndarray, kept: np.ndarray) -> None:
        """The feature service's answer to the records `events` int64[e]: frozen, kept bool[e]."""
        self.sequence[events], self.kept[events], self.frozen[events] = answer.sequence, kept, frozen
        self.folded[events] = answer.sequence
        self.features = answer
        self.at[events] = np.arange(len(events))

    def score(self, scores: Scores | None) -> None:
        if scores is not None:
            self.scores[scores.rows] = scores.probability
            self.model, self.version = scores.model, scores.version


def write(scanned: Scanned, made: Enriched, header: bytes, feature_set: FeatureSet = BASE) -> list[bytes]:
    """The messages of the records that are kept, in their order; frozen features are of `feature_set`."""
    name = np.frombuffer(feature_set.name.encode(), np.uint8)
    width = len(name) + 12 * feature_set.F + 4 * feature_set.K
    kept = np.nonzero(made.kept)[0]
    rows = made.rows[kept]
    spans = scanned.spans[rows]
    model = np.frombuffer(made.model.encode(), np.uint8) if made.model else _NONE
    copied = int((spans[:, VALUE_END] - spans[:, HEAD] + spans[:, END] - spans[:, EXPOSURE]).sum())
    out = np.empty(copied + len(kept) * (_FRAME + len(model) + width), np.uint8)
    ends = np.empty(len(kept), np.int64)
    features = made.features
    kernels.write_enriched(
        scanned.data, np.frombuffer(header, np.uint8), spans, made.causes.source[kept].astype(np.int64),
        made.causes.partition[kept].astype(np.int64), made.causes.offset[kept], made.ts_ms[kept], made.sequence[kept], made.folded[kept],
        made.newest_ms[kept], made.frozen[kept], made.at[kept], _packed(features.keys), _packed(features.values),
        _packed(features.numbers), name, model, made.version, made.scores[kept], out, ends)
    data = out[: int(ends[-1]) if len(ends) else 0].tobytes()
    stops = ends.tolist()
    return [data[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=False)]


def _packed(rows: np.ndarray) -> np.ndarray:
    """uint8[n, bytes of a row] of a matrix, writable whatever it was: one compiled kernel."""
    flat = np.array(rows, order="C")
    return flat.view(np.uint8).reshape(len(flat), -1) if len(flat) else np.empty((0, 0), np.uint8)
