"""Samples learnt again where they are missing: read once more from their topic, or made from a file of rows.

Both go through the product's Trainer under their causes, and each shard is sent only what its ring does not hold. Samples of a topic keep
the causes that they had; a file is a source of its own, named by its bytes, so that the same file again is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from headrace.choice import choice_of
from headrace.config import Config, Model
from headrace.feature_set import feature_set_of, model_inputs
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.layout import NUMBERS
from headrace.models.batch import Batch
from headrace.models.catalog import MODELS
from headrace.models.choice import EVERY, Choice
from headrace.models.inputs import Inputs
from headrace.models.train import Trainer, local_rate
from headrace.ps.backfill import Backfill, Tally
from headrace.ps.client import ParameterClient
from headrace.rows import Rows
from headrace.rpc.causes import Causes
from headrace.schemas.errors import Malformed
from headrace.schemas.hashing import source_number
from headrace.streaming.masked import Masked
from headrace.streaming.model_inputs import inputs_of

CHUNK_ROWS = 4096
_CTR, _SHOWN = NUMBERS.index("item_ctr"), NUMBERS.index("user_impressions")
Part = tuple[Batch, Causes, np.ndarray]


class BackfillError(Exception):
    """What is to be learnt does not fit the running stack; the message says what and what to do."""


@dataclass
class Report:
    """What a backfill of `model` read and did: `read` records, of which `samples` are of the target and `unreadable` do not decode; one
    tally a shard."""

    model: str
    read: int = 0
    samples: int = 0
    unreadable: int = 0
    shards: list[Tally] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def from_samples(config: Config, model: Model, since_ms: int | None = None, moved: Callable[[Report], Any] = lambda report: None) -> Report:
    """Backfill `model` from the topic `samples` as it is now, from its beginning or from what was appended at `since_ms` on.

    Raises BackfillError, KafkaUnavailable, and Unavailable and Refused of the parameter server.
    """
    from headrace import kafka
    from headrace.serve import Codecs

    bootstrap = config.kafka.cluster
    stop = {partition: high for partition, (_, high) in kafka.watermarks(bootstrap, "samples").items()}
    start = kafka.since(bootstrap, "samples", since_ms) if since_ms is not None else {}
    report = Report(model.name)
    codec = Codecs(config).of("samples")

    def records() -> Iterator[dict[str, Any]]:
        for record in kafka.read_between(bootstrap, "samples", start, stop):
            report.read += 1
            try:
                yield codec.decode(record.value or b"")
            except Malformed:
                report.unreadable += 1

    feature_set, inputs = feature_set_of(config), model_inputs(config, model)
    masked = Masked(config.features.address).now()
    parts = parts_of(records(), config.target_of(model.name), feature_set, inputs, masked, choice_of(config))
    return _learn(config, model, parts, report, moved, inputs)


def from_rows(config: Config, model: Model, rows: Rows, moved: Callable[[Report], Any] = lambda report: None) -> Report:
    """Backfill `model` from the rows of a file, each frozen before it is folded into features of the file's own; offsets are row numbers.

    Raises Unavailable and Refused of the parameter server.
    """
    from headrace.offline import samples

    report, source = Report(model.name), source_number(f"file {rows.digest}")
    feature_set, inputs = feature_set_of(config), model_inputs(config, model)

    def parts() -> Iterator[Part]:
        for batch, _, popularity in samples(rows, config.features.half_life_s, inputs, feature_set, choice=choice_of(config),
                                            idle_s=config.features.idle_s):
            row = rows.row[report.read : report.read + len(batch)]
            report.read += len(batch)
            yield batch, Causes(np.full(len(row), source, np.int32), np.zeros(len(row), np.int32), row), popularity

    return _learn(config, model, parts(), report, moved, inputs)


def parts_of(records: Iterable[dict[str, Any]], target: str, feature_set: FeatureSet = BASE,
             inputs: Inputs | None = None, masked: Sequence[str] = (), choice: Choice = EVERY) -> Iterator[Part]:
    """(batch, causes, popularity) of up to 4,096 records of `samples` at a time, each cause once a part, other targets left out; as
    `inputs` make them of `feature_set`, `masked` features as their defaults."""
    inputs = inputs or inputs_of(feature_set)
    held: dict[tuple[int, int, int], dict[str, Any]] = {}
    for record in records:
        if record["target"] == target:
            held.setdefault((record["source"], record["partition"], record["offset"]), record)
            if len(held) == CHUNK_ROWS:
                yield _part(list(held.values()), feature_set, inputs, masked, choice)
                held = {}
    if held:
        yield _part(list(held.values()), feature_set, inputs, masked, choice)


def _part(records: list[dict[str, Any]], feature_set: FeatureSet, inputs: Inputs, masked: Sequence[str], choice: Choice) -> Part:
    foreign = next((record["feature_set"] for record in records if record["feature_set"] != feature_set.name), None)
    if foreign is not None:
        raise BackfillError(f"a sample carries feature set {foreign!r}, and the model learns {feature_set.name!r}: choose a later --since")
    label, weight = (np.array([record[name] for record in records], np.float32) for name in ("label", "weight"))
    numbers = [record["numbers"] for record in records]
    batch = inputs.batch([r["feature_keys"] for r in records], [r["feature_values"] for r in records], numbers, label, weight,
                         masked)
    causes = Causes(*(np.array([record[name] for record in records], dtype) for name, dtype in
                      (("source", np.int32), ("partition", np.int32), ("offset", np.int64))))
    told = np.frombuffer(b"".join(numbers), "<f4").reshape(-1, feature_set.K)
    return batch.weighed(choice.active(batch.weight, told[:, _SHOWN])), causes, told[:, _CTR]


def _learn(config: Config, model: Model, parts: Iterable[Part], report: Report, moved: Callable[[Report], Any],
           inputs: Inputs) -> Report:
    """Ask for a whole part at once, then learn what some shard lacks in batches as training does."""
    effect, rows, choice = config.target_of(model.name), config.flink.train_batch_rows, choice_of(config)
    client = ParameterClient(config.ps.reachable)
    try:
        backfill = Backfill(client, len(config.ps.addresses))
        report.shards = backfill.tallies
        trainer = Trainer(MODELS[model.name](inputs.fields), client.pull, backfill.push, l2=model.l2,
                          window_offsets=model.window_offsets, effect=effect, rate=local_rate(model.optimizer, model.learning_rate),
                          kept=choice.kept)
        for batch, causes, popularity in parts:
            batch = batch.weighed(choice.sampled(batch.weight, batch.label, causes))
            report.samples += len(batch)
            lacking = np.nonzero(backfill.lacking(model.name, effect, causes))[0]
            for start in range(0, len(lacking), rows):
                at = lacking[start : start + rows]
                trainer.learn(batch.take(at), causes.take(at), popularity[at])
            moved(report)
    finally:
        client.close()
    return report
