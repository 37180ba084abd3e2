"""A running stack as Arrow tables, one call each: what notebooks and ad-hoc questions need.

    from headrace.lab import Lab
    lab = Lab()                                  # the stack of this folder, as every command finds it
    lab.samples(minutes=10).to_pandas()
    lab.metrics().to_pandas().plot(x="window", y=["auc", "auc_popularity"])

Reads only: nothing is written, and no consumer group is joined. Needs headrace[serve].
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace import kafka
from headrace.access import given
from headrace.api import Client
from headrace.commands.options import configured
from headrace.config import Config
from headrace.feature_set import feature_set_of
from headrace.features.layout import NUMBERS, SLOTS, F
from headrace.live_taps import live_taps
from headrace.models.progressive import MODEL, POPULARITY, keys_of, summary
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed
from headrace.schemas.registry import RegistryClient

PACKED = ("feature_keys", "feature_values", "numbers")
RECORDS_MAX = 200_000


class Lab:
    """The stack of `config`, by default the one that every command of this folder finds.

    A record of a topic that does not decode is left out, and a warning says how many were and why the first: what the jobs made of it
    stands in the dead letters (`headrace dead-letters list`).

    `data`: its data folder, where it is not the configured one. Raises ConfigError; its calls raise KafkaUnavailable, RegistryUnavailable,
    EngineError and Unavailable, with what to do.
    """

    def __init__(self, config: Config | None = None, *, data: str | Path | None = None) -> None:
        self.config = config or configured(None, Path(data) if data else None)

    def topic(self, name: str, *, minutes: float | None = None, limit: int = RECORDS_MAX) -> pa.Table:
        """The newest `limit` records of a topic of ours that the broker took in the last `minutes` (all that it keeps by default), decoded,
        in the order of partition and offset; `at_partition`, `at_offset` say where each lies."""
        return pa.Table.from_pylist(list(self._records(name, minutes, limit)))

    def samples(self, *, minutes: float | None = None, limit: int = RECORDS_MAX) -> pa.Table:
        """What the model learns from, the first record of each cause, in the order of event time, with its features unpacked: `keys`
        fixed_size_list<uint64>[F], `values` fixed_size_list<float>[F], and a float column for each number of the feature set (user_ctr,
        item_age_s, ...).

        Samples of another feature set are left out. One slot: `table["values"].combine_chunks().flatten()[slot::F]`, names in `SLOTS`.
        """
        feature_set = feature_set_of(self.config)
        slots, width = feature_set.F, feature_set.K
        seen: dict[tuple[int, int, int], dict[str, Any]] = {}
        for record in self._records("samples", minutes, limit):
            if record["feature_set"] == feature_set.name:
                seen.setdefault((record["source"], record["partition"], record["offset"]), record)
        rows = sorted(seen.values(), key=lambda record: (record["ts_ms"], record["partition"], record["offset"]))
        table = pa.Table.from_pylist([{name: value for name, value in row.items() if name not in PACKED} for row in rows])
        keys, values, numbers = (_matrix(rows, name, kind, width) for name, kind, width in (
            ("feature_keys", "<u8", slots), ("feature_values", "<f4", slots), ("numbers", "<f4", width)))
        table = table.append_column("keys", pa.FixedSizeListArray.from_arrays(pa.array(keys.reshape(-1)), slots))
        table = table.append_column("values", pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), slots))
        for column, name in enumerate(feature_set.numbers):
            table = table.append_column(name, pa.array(np.ascontiguousarray(numbers[:, column])))
        return table

    def features(self, user: str, items: Sequence[str], *, ts_ms: int | None = None) -> pa.Table:
        """What the ranker sees of a user and each of `items` now, or as of `ts_ms`: item_id, a float column a slot, and of definitions one
        a number."""
        feature_set = feature_set_of(self.config)
        own = feature_set.numbers[len(NUMBERS) :]
        with closing(Client(**given(self.config.engine))) as client:
            rows = []
            for item in items:
                found = client.features(user, item, ts_ms=ts_ms)
                rows.append({"item_id": item, **dict.fromkeys(feature_set.slots, 0.0), **{slot.slot: slot.value for slot in found.slots},
                             **{name: found.numbers[name] for name in own}})
        return pa.Table.from_pylist(rows)

    def metrics(self) -> pa.Table:
        """Progressive figures of the served model by window of `model.window_offsets` offsets of interactions, oldest first: window,
        samples, positives, auc, logloss, logloss_base_rate, calibration, and auc_popularity of the baseline. Windows without samples are
        left out."""
        with live_taps(self.config) as taps:
            newest = max(taps.highs("interactions").values(), default=0) // self.config.model.window_offsets
            rows = []
            for window in range(newest + 1):
                model = summary(taps.counts(keys_of(MODEL, window)))
                if model["samples"]:
                    rows.append({"window": window, **model, "auc_popularity": summary(taps.counts(keys_of(POPULARITY, window)))["auc"]})
        return pa.Table.from_pylist(rows)

    def _records(self, name: str, minutes: float | None, limit: int) -> Iterable[dict[str, Any]]:
        where = self.config.kafka.cluster
        marks = kafka.watermarks(where, name)
        start = {p: low for p, (low, _) in marks.items()}
        if minutes is not None:
            start = kafka.since(where, name, int((time.time() - 60 * minutes) * 1000))
        share = -(-limit // max(len(marks), 1))
        stop = {p: high for p, (_, high) in marks.items()}
        start = {p: max(start[p], high - share) for p, high in stop.items()}
        with closing(RegistryClient(self.config.registry.access)) as registry:
            codec = Codec(name, registry)
            decode: Callable[[bytes], dict[str, Any]] = codec.decode
            refused: list[str] = []
            for record in sorted(kafka.read_between(where, name, start, stop), key=lambda one: (one.partition, one.offset)):
                if record.value is None:
                    continue
                try:
                    decoded = decode(record.value)
                except Malformed as error:
                    refused.append(f"partition {record.partition} offset {record.offset}: {error}")
                    continue
                yield {**decoded, "at_partition": record.partition, "at_offset": record.offset}
        if refused:
            warnings.warn(f"{len(refused)} records of {name} do not decode and are left out; the first, {refused[0]}", stacklevel=2)


def _matrix(rows: list[dict[str, Any]], name: str, kind: str, width: int) -> np.ndarray:
    return np.frombuffer(b"".join(row[name] for row in rows), kind).reshape(len(rows), width)


__all__ = ["NUMBERS", "SLOTS", "F", "Lab"]
