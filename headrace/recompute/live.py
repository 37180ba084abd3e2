"""The checks of skew and of the join on a running stack: its topics read from their beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from headrace import kafka
from headrace.config import Config
from headrace.features.feature_set import FeatureSet
from headrace.recompute import join
from headrace.recompute.join import JoinError, Record, Sent
from headrace.recompute.skew import Report, SkewError, skew
from headrace.schemas.errors import Malformed
from headrace.serve import Codecs


class _Topics:
    """Records of a running stack's topics, each partition in its order."""

    def __init__(self, config: Config) -> None:
        self._cluster, self._codecs = config.kafka.cluster, Codecs(config)

    def ends(self, topic: str) -> dict[int, int]:
        """The offset that the next record of each partition gets."""
        return {partition: high for partition, (_, high) in kafka.watermarks(self._cluster, topic).items()}

    def sent(self, topic: str, stop: dict[int, int]) -> Iterator[Sent]:
        """All from the beginning to before `stop`, what cannot be read too."""
        codec = self._codecs.of(topic)
        for one in kafka.read_between(self._cluster, topic, {}, stop):
            try:
                record = codec.decode(one.value or b"")
            except Malformed:
                record = None
            yield Sent((one.partition, one.offset), one.timestamp_ms, record)

    def records(self, topic: str, stop: dict[int, int]) -> Iterator[Record]:
        """What can be read of it."""
        return (one.record for one in self.sent(topic, stop) if one.record is not None)


def live_skew(config: Config, feature_set: FeatureSet, limit: int, seed: int, moved: Callable[[str], Any]) -> Report:
    """`skew` of what the broker has now. Raises SkewError, KafkaUnavailable."""
    topics = _Topics(config)
    enriched_ends = topics.ends("enriched")  # first: whatever is in it then is in interactions
    # What cannot be read is told by dead letters, and not folded.
    interactions = {one.place: one.record for one in topics.sent("interactions", topics.ends("interactions")) if one.record is not None}
    if not interactions:
        raise SkewError("no interaction has been sent yet: there is nothing to check")
    return skew(interactions, topics.records("enriched", enriched_ends), feature_set, half_life_s=config.features.half_life_s,
                idle_s=config.features.idle_s, limit=limit, seed=seed, moved=moved)


def live_join(config: Config, restarted: bool, moved: Callable[[str], Any] = lambda text: None) -> join.Report:
    """`join` of what the broker has now. Raises JoinError, KafkaUnavailable."""
    wanted = config.samples
    if wanted.strategy != "wait":
        raise JoinError(f"samples.strategy is {wanted.strategy}: its samples follow the order in which actions arrive; the join is checked"
                        " of strategy wait alone")
    topics = _Topics(config)
    sample_ends = topics.ends("samples")  # first: what they came of, and what was refused on the way, is in the others then
    letters = list(topics.records("dead-letters", topics.ends("dead-letters")))
    first = {partition: low for partition, (low, _) in kafka.watermarks(config.kafka.cluster, "interactions").items() if low}
    if first:
        raise JoinError(f"interactions begins at {first} and not at 0: what lies before has been deleted (kafka.retention_ms), and the join"
                        " needs the log from its beginning")
    moved("the log is read")
    sent = sorted(topics.sent("interactions", topics.ends("interactions")), key=lambda one: one.place)
    if not any(one.record is None or one.record["action"] != join.HEARTBEAT for one in sent):
        raise JoinError("no interaction has been sent yet: there is nothing to check")
    moved(f"DuckDB joins {len(sent):,} records")
    rules = join.Rules(kafka.topic_source(config.kafka.cluster, "interactions"), wanted.targets, wanted.out_of_orderness_ms,
                       restarted, wanted.rules)
    return join.join(sent, topics.records("samples", sample_ends), letters, rules)
