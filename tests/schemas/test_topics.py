"""The table of topics."""

from __future__ import annotations

from headrace.schemas.codec import SCHEMAS, schema_name
from headrace.schemas.topics import settings, touched_topic, weights_topic


def test_every_schema_has_its_topic_and_every_topic_its_schema():
    topics = settings(["fm"], 4)
    assert {topic.schema for topic in topics} == set(SCHEMAS)
    assert all(schema_name(topic.name) == topic.schema for topic in topics)
    assert all(topic.partitions for topic in topics)
    by_name = {topic.name: topic for topic in topics}
    for name in ("interactions", "enriched", "samples"):
        assert by_name[name].partitions == 4


def test_configs():
    by_name = {topic.name: topic.config() for topic in settings(["fm", "lr"], 2)}
    assert by_name["interactions"]["message.timestamp.type"] == "LogAppendTime"
    assert by_name["vectors"]["cleanup.policy"] == "compact" and "retention.ms" not in by_name["vectors"]
    assert all(isinstance(value, str) for config in by_name.values() for value in config.values())
    assert {touched_topic("lr").name, weights_topic("lr").name} <= by_name.keys()
