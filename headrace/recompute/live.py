"""The check of skew on a running stack: its topics read from their beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from headrace import kafka
from headrace.config import Config
from headrace.features.feature_set import FeatureSet
from headrace.recompute.skew import Report, SkewError, skew
from headrace.schemas.errors import Malformed
from headrace.serve import Codecs


def live_skew(config: Config, feature_set: FeatureSet, limit: int, seed: int, moved: Callable[[str], Any]) -> Report:
    """`skew` of what the broker has now. Raises SkewError, KafkaUnavailable."""
    codecs = Codecs(config)

    def records(topic: str, stop: dict[int, int]) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
        codec = codecs.of(topic)
        for one in kafka.read_between(config.kafka.cluster, topic, {}, stop):
            try:
                yield (one.partition, one.offset), codec.decode(one.value or b"")
            except Malformed:
                continue  # told by dead letters, and not folded

    def ends(topic: str) -> dict[int, int]:
        return {partition: high for partition, (_, high) in kafka.watermarks(config.kafka.cluster, topic).items()}

    enriched_ends = ends("enriched")  # first: whatever is in it then is in interactions
    interactions = dict(records("interactions", ends("interactions")))
    if not interactions:
        raise SkewError("no interaction has been sent yet: there is nothing to check")
    return skew(interactions, (record for _, record in records("enriched", enriched_ends)), feature_set,
                half_life_s=config.features.half_life_s, limit=limit, seed=seed, moved=moved)
