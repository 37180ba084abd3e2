"""A producer that knows nothing of headrace: confluent_kafka's own AvroSerializer against our registry."""

import time
import uuid

import pytest
from confluent_kafka import SerializingProducer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer

from tests.end_to_end.outside import SCHEMAS, until


def from_registry(client):
    """The schema that the registry has; nothing is registered."""
    schema = client.get_latest_version("interactions-value").schema.schema_str
    return AvroSerializer(client, schema, conf={"auto.register.schemas": False, "use.latest.version": True})


def from_file(client):
    """The .avsc of the repository, registered by the serializer: it is there already, so it gets the id it has."""
    return AvroSerializer(client, (SCHEMAS / "interactions.avsc").read_text())


@pytest.mark.parametrize("serializer", [from_registry, from_file])
def test_an_impression_and_a_click_become_one_positive_sample(loop, serializer):
    config = loop.config
    loop.post("/events", {"user_id": "clock", "item_id": "clock", "action": "impression"})  # the clock runs: windows close
    client = SchemaRegistryClient({"url": config.registry.url})
    versions = client.get_versions("interactions-value")
    producer = SerializingProducer({"bootstrap.servers": config.kafka.bootstrap, "partitioner": "murmur2_random",
                                    "key.serializer": lambda user, _: user.encode(), "value.serializer": serializer(client)})
    user, start = f"producer-{uuid.uuid4().hex[:8]}", loop.offsets("samples")
    applied, dead = loop.applied(), loop.offsets("dead-letters")
    failed = []
    for action in ("impression", "click"):
        producer.produce("interactions", key=user, on_delivery=lambda error, _: failed.append(error) if error else None, value={
            "event_id": str(uuid.uuid4()), "request_id": None, "scene": "feed", "user_id": user, "item_id": "film-1", "action": action,
            "value": 1.0, "position": None, "ts_ms": time.time_ns() // 1_000_000, "context": {"hour": "7"}, "exposure": None})
    assert producer.flush(10) == 0 and not failed

    def mine():
        return [row for row in loop.samples(start).values() if row["user_id"] == user]

    until(mine, "the sample of the impression")
    [sample] = mine()
    assert (sample["item_id"], sample["scene"], sample["label"], sample["actions"]) == ("film-1", "feed", 1.0, "click")
    until(lambda: all(now > then for now, then in zip(loop.applied(), applied, strict=True)), "the sample is applied")
    assert loop.offsets("dead-letters") == dead
    assert client.get_versions("interactions-value") == versions
