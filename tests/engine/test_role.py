"""The sink of the role over a producer that answers late, badly, or not at all."""

import socket
import threading

import httpx
import pytest
from prometheus_client import CollectorRegistry

from headrace.config import Config
from headrace.kafka import Undelivered
from headrace.roles import engine as role
from headrace.rpc.errors import Unavailable
from headrace.schemas.codec import Codec

RECORD = {"event_id": "e", "user_id": "u", "item_id": "i", "action": "click", "ts_ms": 1_700_000_000_000}


class Registry:
    def register(self, subject, text):
        return 1


class Producer:
    def __init__(self, errors=(), answers=True):
        self.waiting, self.sent, self.errors, self.answers = [], [], list(errors), answers

    def send(self, topic, key, value, on_delivery=None):
        self.sent.append((topic, key, value))
        self.waiting.append((on_delivery, self.errors.pop(0) if self.errors else None))

    def poll(self, seconds=0.0):
        while self.answers and self.waiting:
            delivered, error = self.waiting.pop(0)
            delivered(error, None)


def sink(producer):
    registry = CollectorRegistry()
    return role.Interactions(producer, Codec("interactions", Registry()), registry), registry


def test_deliver_says_what_became_of_each():
    producer = Producer([None, "refused by the broker"])
    interactions, registry = sink(producer)
    assert interactions.deliver([(b"u", RECORD)] * 3) == ["", "refused by the broker", ""]
    assert [topic for topic, _, _ in producer.sent] == ["interactions"] * 3
    assert registry.get_sample_value("headrace_engine_interactions_total", {"outcome": "sent"}) == 2
    assert registry.get_sample_value("headrace_engine_interactions_total", {"outcome": "failed"}) == 1


def test_a_broker_that_does_not_answer_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(role, "DELIVERY_S", 0.05)
    assert "no acknowledgement" in sink(Producer(answers=False))[0].deliver([(b"u", RECORD)])[0]


def test_post_does_not_wait():
    producer = Producer(answers=False)
    sink(producer)[0].post([(b"u", RECORD)] * 2)
    assert len(producer.sent) == 2


def test_a_full_queue_is_unavailable():
    class Full(Producer):
        def send(self, *_):
            raise Undelivered("the queue stayed full")

    with pytest.raises(Unavailable, match="cannot be written"):
        sink(Full())[0].deliver([(b"u", RECORD)])


def test_many_threads_share_one_codec():
    producer = Producer()
    interactions, _ = sink(producer)
    threads = [threading.Thread(target=lambda: interactions.post([(b"u", RECORD)] * 200)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({value for _, _, value in producer.sent}) == 1 and len(producer.sent) == 800


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def test_the_role_serves_while_everything_below_is_down_and_ends_clean(tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(6)]
    config = Config(stack={"data_dir": tmp_path}, engine={"url": f"http://{addresses[0]}"}, kafka={"bootstrap": addresses[1]},
                    registry={"url": f"http://{addresses[2]}"}, features={"address": addresses[3]}, replica={"addresses": [addresses[4]]},
                    ann={"address": addresses[5]})
    stop = role.start(config)
    try:
        with httpx.Client(base_url=config.engine.url, trust_env=False, timeout=20) as http:
            assert http.get("/healthz").status_code == 200
            assert http.get("/ready").status_code == 503
            answer = http.get("/recommend?user=u&preview=1")
            assert answer.status_code == 503 and "headrace status" in answer.json()["next"]
            assert http.get("/clock").json() == {"mode": None, "ts_ms": None}
            answer = http.post("/events", json={"user_id": "u", "item_id": "i", "action": "click", "ts_ms": 1_700_000_000_000})
            assert answer.status_code == 503 and "registry" in answer.json()["error"]
    finally:
        stop()
    assert not [thread for thread in threading.enumerate() if thread.name in ("heartbeats", "engine-http")]
    with pytest.raises(httpx.ConnectError):
        httpx.get(config.engine.url + "/healthz", trust_env=False)
