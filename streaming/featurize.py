"""The features job's Python stage: undecoded interactions -> enriched records, in one Arrow crossing.

Scan with guards (streaming/scanned.py), clamp event time, `freeze_and_fold` at the feature service, write. All of it works on columns: a
Python object is made of a record only when it is refused. What is refused goes to dead-letters with its reason; a retry (its event was
folded under another cause) gives no row, nor does what `enriched` has already (streaming/written.py). An event that kills the worker or
fails it is left out (streaming/quarantine.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext

from headrace.features.client import FeatureClient
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.frozen import Frozen
from headrace.features.inputs import Records
from headrace.features.known_sets import KnownSets
from headrace.features.layout import IMPRESSION, RETRY
from headrace.rpc import access
from headrace.rpc.causes import Causes
from headrace.schemas.access import RPC_TOKEN, Cluster, Registry, secret
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed
from headrace.schemas.kernels import EVENT, HEARTBEAT, USER_ID
from headrace.schemas.registry import RegistryClient
from headrace.streaming.enrich import Enriched, Scores, write
from headrace.streaming.event_keys import EventKeys
from headrace.streaming.kafka import DeadLetters
from headrace.streaming.positions import Message, Standing, appended
from headrace.streaming.scanned import Reader, Scanned
from headrace.streaming.scoring import Scorer, Scoring
from headrace.streaming.set_columns import SetColumns
from headrace.streaming.stage import Stage, vectorised
from headrace.streaming.written import CLOCKS_MS, Written

RESULT = DataTypes.BYTES()
AHEAD_MS = 1000


@dataclass(frozen=True)
class Addresses:
    """What a Python worker connects to."""

    kafka: Cluster | str
    registry: Registry | str
    features: str
    parameters: Sequence[str] = ()
    secrets: str = ""  # file with the token of our own processes, "" where they ask for none
    rpc_ca: str = ""  # PEM of the authority that signed their certificates, "" where they use no TLS

    def join(self) -> None:
        """Have this worker's calls show the token and go over TLS; before the first client is made."""
        token = secret(self.secrets, RPC_TOKEN) if self.secrets else ""
        access.use(access.Access(token, self.rpc_ca))


class Featurize(Stage):
    """(key, value, partition, offset, timestamp) of interactions -> value of enriched, under the same key; null: nothing to write."""

    def __init__(self, addresses: Addresses, source: int, event_bytes_max: int, scoring: Scoring | None = None, marks: str = "",
                 standing: Standing | None = None, feature_set: FeatureSet = BASE) -> None:
        super().__init__(marks, standing)
        self.addresses = addresses
        self.set = feature_set
        self.source = source
        self.event_bytes_max = event_bytes_max
        self.scoring = scoring

    def open(self, function_context: FunctionContext) -> None:
        self.guard(f"features-{self.source}")
        self.addresses.join()
        registry = RegistryClient(self.addresses.registry)
        self.features = FeatureClient(self.addresses.features, feature_set=self.set)
        self.prepare(Codec("interactions", registry), Codec("enriched", registry), self.features.known())
        self.stand(self.addresses.kafka)
        self.written = Written(self.addresses.kafka if self.standing else None, self.enriched, self.source)
        self.scorer = Scorer(self.scoring, self.set) if self.scoring else None
        self.dead_letters = DeadLetters(self.addresses.kafka, Codec("dead-letters", registry))
        self.clamped = function_context.get_metric_group().counter("event_time_clamped")
        self.retries = function_context.get_metric_group().counter("retries")

    def prepare(self, interactions: Codec, enriched: Codec, known: KnownSets | None = None) -> None:
        """What reads and writes, over `features`."""
        self.interactions, self.enriched = interactions, enriched
        self.written = Written(None, enriched, self.source)
        self.reader = Reader(interactions, self.event_bytes_max, self.set, known)
        self.event_keys = EventKeys(self._tell)
        self.set_columns = SetColumns(self.set, self._tell)

    def _tell(self, names: list[str]) -> None:
        self.features.names(names)

    def eval(self, key: pd.Series, value: pd.Series, partition: pd.Series, offset: pd.Series, append_ms: pd.Series) -> pd.Series:
        places, offsets, appends = partition.to_numpy(np.int32), offset.to_numpy(np.int64), append_ms.to_numpy(np.int64)
        self.written.take_up(places, appends)
        self.catch_up(places, offsets)
        todo = self.written.lacks(places, offsets)
        call = _Call(key[todo].tolist(), value[todo].tolist(), places[todo], offsets[todo], appends[todo])
        self._answer(call)
        self.passed(places, offsets)
        made = np.full(len(todo), None)
        made[todo] = call.values
        return pd.Series(made)

    def again(self, messages: list[Message]) -> list[tuple[bytes | None, bytes]]:
        """Of what is not in `enriched` yet: an event that is written again comes behind its partition, and may be told as late."""
        written = self._written(min(one.append_ms for one in messages))
        messages = [one for one in messages if (one.partition, one.offset) not in written]
        if not messages:
            return []
        partition, offset, key, value, append_ms = zip(*messages, strict=True)
        call = _Call(list(key), list(value), np.array(partition, np.int32), np.array(offset, np.int64), np.array(append_ms, np.int64))
        self._answer(call)
        return [(one, made) for one, made in zip(key, call.values, strict=True) if made is not None]

    def _written(self, since_ms: int) -> set[tuple[int, int]]:
        """(partition, offset) of the events that `enriched` got since then, which are those of then and later."""
        return {(p, offset) for p, offset, _ in self.written.of(appended(self.addresses.kafka, "enriched", since_ms - CLOCKS_MS))}

    def _answer(self, call: _Call) -> None:
        """Fill in the answers of a call; its dead letters are with the broker when this returns."""
        self.quarantine.run(call.partition.astype(np.int64), call.offset, lambda rows: self._work(call, rows),
                            lambda row, detail: self._refuse(call, row, Malformed("poison", detail)))
        if call.refused:
            self._post(call)
            self.dead_letters.flush()

    def _work(self, call: _Call, chosen: np.ndarray) -> None:
        """Fill in the answer of the `chosen` rows. Those that are wrong have their dead letters on the way when this returns."""
        at = chosen.tolist()
        scanned, refused = self.reader.read([call.value[row] for row in at])
        for row, error in refused + self._wrong_keys(call, scanned, at):
            self._refuse(call, at[row], error)
            scanned.seen[row] = 0
        self._post(call)
        rows = np.nonzero(scanned.seen)[0]
        if not len(rows):
            return
        where = chosen[rows]
        causes = Causes(np.full(len(rows), self.source, np.int32), call.partition[where], call.offset[where])
        made = self._enriched(scanned, rows, causes, self._clamp(scanned.ts_ms[rows], call.append_ms[where]),
                              lambda chosen: self.reader.decoded([call.value[at[row]] for row in chosen.tolist()]))
        kept = made.kept
        made.newest_ms[kept] = self.written.newest(causes.partition[kept], made.ts_ms[kept])
        for row, value in zip(where[made.kept].tolist(), write(scanned, made, self.enriched.header, self.set), strict=True):
            call.values[row] = value
        self.written.keep(causes.partition[kept], made.newest_ms[kept])

    def _wrong_keys(self, call: _Call, scanned: Scanned, at: list[int]) -> list[tuple[int, Malformed]]:
        """Events whose record's key is not their user."""
        found = []
        text = scanned.data.tobytes()
        for row, (seen, (start, size)) in enumerate(zip(scanned.seen.tolist(), scanned.texts[:, USER_ID].tolist(), strict=True)):
            if seen == EVENT and call.key[at[row]] != text[start : start + size]:
                user = text[start : start + size].decode()
                found.append((row, Malformed("wrong_key", f"the key is {_shown(call.key[at[row]])}, user_id is {user[:80]!r}")))
        return found

    def _refuse(self, call: _Call, row: int, error: Malformed) -> None:
        if row not in call.refused:  # a batch that is cut after a failure is read again
            call.refused.add(row)
            call.letters.append((row, error))

    def _post(self, call: _Call) -> None:
        """All letters so far in one go: one request to the broker, which answers while the good events are folded."""
        for row, error in sorted(call.letters, key=lambda letter: letter[0]):
            self.dead_letters.send("interactions", int(call.partition[row]), int(call.offset[row]), error.reason, error.detail,
                                   call.value[row] or b"")
        call.letters.clear()

    def _clamp(self, ts_ms: np.ndarray, append_ms: np.ndarray) -> np.ndarray:
        """An event time ahead of the broker's append time becomes the append time: one fast clock must not close windows for all."""
        ahead = ts_ms > append_ms + AHEAD_MS
        if ahead.any():
            self.clamped.inc(int(ahead.sum()))
        return np.where(ahead, append_ms, ts_ms)

    def _enriched(self, scanned: Scanned, rows: np.ndarray, causes: Causes, ts_ms: np.ndarray,
                  decode: Callable[[np.ndarray], Records]) -> Enriched:
        """What is written of `rows` int64[k] of a scan: all but retries. `decode`: records of a scan's rows."""
        events = np.nonzero(scanned.seen[rows] != HEARTBEAT)[0]
        made = Enriched.empty(rows, causes, ts_ms)
        if len(events):
            columns = self.event_keys.columns(scanned, rows[events], ts_ms[events])
            if self.set.definitions:
                columns |= self.set_columns.columns(scanned, rows[events], columns["user"], columns["item"], decode)
            answer = self.features.freeze_and_fold(causes.take(events), columns)
            retries = answer.status == RETRY
            if retries.any():
                self.retries.inc(int(retries.sum()))
            frozen = (columns["action"] == IMPRESSION) & (columns["served"] == 0) & ~retries
            made.take(events, answer, frozen, ~retries)
            made.score(self._scores(events[frozen], answer, np.nonzero(frozen)[0]))
        return made

    def _scores(self, rows: np.ndarray, answer: Frozen, frozen: np.ndarray) -> Scores | None:
        """Scores of the exposures frozen in this batch; None without a scorer, or while nobody answers it."""
        columns = answer.keys[frozen], answer.values[frozen], answer.numbers[frozen]
        made = self.scorer.score(*columns, masked=self.features.masked) if self.scorer is not None else None
        if made is None:
            return None
        assert self.scorer is not None, "it has just answered"
        return Scores(rows, made[0], self.scorer.model, made[1])


class _Call:
    """The rows of one call, and their answer as it grows."""

    def __init__(self, key: list[bytes | None], value: list[bytes | None], partition: np.ndarray, offset: np.ndarray,
                 append_ms: np.ndarray) -> None:
        self.key, self.value, self.partition, self.offset, self.append_ms = key, value, partition, offset, append_ms
        self.values: list[bytes | None] = [None] * len(value)
        self.refused: set[int] = set()
        self.letters: list[tuple[int, Malformed]] = []


def _shown(key: bytes | None) -> str:
    return "missing" if key is None else repr(key[:80])


def featurize(addresses: Addresses, source: int, event_bytes_max: int, ship: bool = False, scoring: Scoring | None = None,
              marks: str = "", standing: Standing | None = None, feature_set: FeatureSet = BASE):
    """The vectorised, non-deterministic UDF `featurize`."""
    return vectorised(Featurize(addresses, source, event_bytes_max, scoring, marks, standing, feature_set), RESULT, ship)
