"""Raw bytes that no producer of ours would send: each is a dead letter with its place and reason, no job fails, good events go on."""

import json
import math
import struct
import time

import confluent_kafka
import pytest

from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from tests.end_to_end.outside import until

USER = "bad-neighbour"
KEY = USER.encode()


class Writer:
    """Produces bytes to one partition of `interactions`, and remembers where each went."""

    def __init__(self, config):
        self.codec = Codec("interactions", RegistryClient(config.registry.url))
        self.producer = confluent_kafka.Producer({"bootstrap.servers": config.kafka.bootstrap, "partitioner": "murmur2_random"})
        self.placed: list[tuple[int, int]] = []

    def send(self, value):
        def placed(error, message):
            assert error is None, error
            self.placed.append((message.partition(), message.offset()))

        self.producer.produce("interactions", value=value, key=KEY, on_delivery=placed)
        assert self.producer.flush(10) == 0
        return self.placed[-1]

    def event(self, **more):
        """An event of now as bytes; `more` overrides its fields."""
        record = {"event_id": f"bad-{len(self.placed)}-{time.time_ns()}", "user_id": USER, "item_id": "item", "action": "impression",
                  "ts_ms": time.time_ns() // 1_000_000}
        return self.codec.encode({**record, **more})


def exposure(**more):
    values = struct.pack("<2f", 1.0, 1.0)
    return {"feature_set": "base@1", "feature_keys": bytes(16), "feature_values": values, "numbers": values, **more}


def bad(writer, event_bytes_max):
    """name -> (bytes, reasons that fit)."""
    good = writer.event()
    now_ms = time.time_ns() // 1_000_000
    return {
        "no magic": (b"\x01" + good[1:], "bad_magic"),
        "JSON": (json.dumps({"user_id": USER, "item_id": "item", "action": "click"}).encode(), "bad_magic"),
        "empty": (b"", "empty"),
        "null": (None, "null_value"),
        "header only": (good[:5], "short_header"),
        "unknown schema": (good[:1] + struct.pack(">I", 987_654) + good[5:], "unknown_schema"),
        "another record's schema": (good[:1] + schema_id(writer, "samples") + good[5:], "wrong_record"),
        "truncated": (good[:-9], "truncated"),
        "trailing bytes": (good + b"\x00", "trailing_bytes"),
        "length of two billion": (good[:5] + b"\xfe\xff\xff\xff\x0f" + good[6:], "truncated"),
        "negative length": (good[:5] + b"\x01" + good[6:], "bad_length"),
        "oversized": (writer.event(context={f"c{i}": "x" * 1000 for i in range(event_bytes_max // 1000 + 1)}), "oversized"),
        "NaN": (writer.event(value=math.nan), "not_finite"),
        "infinity": (writer.event(value=math.inf), "not_finite"),
        "NaN within features": (writer.event(exposure=exposure(numbers=struct.pack("<f", math.nan))), "not_finite"),
        "features that disagree": (writer.event(exposure=exposure(feature_keys=bytes(8))), "bad_exposure"),
        "padded number": (good[:5] + bytes([good[5] | 128, 0]) + good[6:], "bad_varint"),
        "number of 70 bits": (good[:5] + b"\xff" * 9 + b"\x7f" + good[6:], "out_of_range"),
        "another union branch": (good[: 6 + good[5] // 2] + b"\x0a" + good[7 + good[5] // 2 :], "bad_union_index"),
        "a context key twice": (writer.event(context={"twice": "a", "other": "b"}).replace(b"other", b"twice"), "duplicate_key"),
        "features of another set": (writer.event(exposure=exposure(feature_set="base@9")), "foreign_features"),
        "features of another width": (writer.event(exposure=exposure()), "feature_width"),
        "features of no set": (writer.event(exposure=exposure(feature_set="")), "bad_exposure"),
        "score above one": (writer.event(exposure={"score": 1.5}), "bad_score"),
        "a line end in an id": (writer.event(item_id="item\n"), "control_character"),
        "an action with a comma": (writer.event(action="click,like"), "bad_action"),
        "value beyond 32 bits": (writer.event(value=1e300), "bad_value"),
        "negative position": (writer.event(position=-1), "bad_position"),
        "under another's key": (writer.event(user_id="somebody-else"), "wrong_key"),
        "no user": (writer.event(user_id=""), "empty_id"),
        "no item": (writer.event(item_id=""), "empty_id"),
        "long user": (writer.event(user_id="u" * 300), "long_id"),
        "no action": (writer.event(action=""), "bad_action"),
        "microseconds": (writer.event(ts_ms=now_ms * 1000), "bad_ts"),
        "seconds": (writer.event(ts_ms=now_ms // 1000), "bad_ts"),
        "1970": (writer.event(ts_ms=0), "bad_ts"),
        "negative time": (writer.event(ts_ms=-1), "bad_ts"),
        "too many context entries": (writer.event(context={f"c{i}": "x" for i in range(65)}), "bad_context"),
        "not UTF-8": (good.replace(KEY, b"\xff" + KEY[1:]), "bad_utf8"),
    }


def schema_id(writer, topic):
    return Codec(topic, RegistryClient(writer.codec._registry.url)).encode(_SAMPLE)[1:5]


_SAMPLE = {"source": 0, "partition": 0, "offset": 0, "event_id": "", "user_id": "", "item_id": "", "ts_ms": 0, "strategy": "", "target": "",
           "label": 0.0}


@pytest.fixture(scope="module")
def letters(loop):
    """{name: (bytes, reason, place)} once all bad events have their dead letters and the good ones around them are learnt."""
    loop.post("/events", {"user_id": "clock", "item_id": "clock", "action": "impression"})  # the clock runs: windows close
    until(lambda: loop.get("/clock").json()["mode"] == "now", "the clock is now")
    writer = Writer(loop.config)
    before = {"lives": loop.lives(), "dead": loop.offsets("dead-letters"), "samples": loop.offsets("samples")}
    sent, good = {}, []
    for name, (value, reason) in bad(writer, loop.config.engine.event_bytes_max).items():
        good.append(f"good-{len(good)}")
        writer.send(writer.event(item_id=good[-1]))
        sent[name] = (value or b"", reason, writer.send(value))
        writer.send(writer.event(item_id=good[-1], action="click"))
    mine = {place for _, _, place in sent.values()}
    until(lambda: mine <= {place(row) for row in loop.read("dead-letters", before["dead"])}, "a dead letter of each bad event")

    def learnt():
        return {row["item_id"]: row["label"] for row in loop.samples(before["samples"]).values() if row["user_id"] == USER}

    until(lambda: len(learnt()) >= len(good), "samples of the good events")
    return loop, sent, before, good, learnt()


def place(row):
    return row.record["partition"], row.record["offset"]


def test_each_has_a_dead_letter_with_its_place_reason_and_first_bytes(letters):
    loop, sent, before, _, _ = letters
    found = {}
    for row in loop.read("dead-letters", before["dead"]):
        found.setdefault(place(row), row.record)
    told = {name: (found[at]["topic"], found[at]["reason"], found[at]["first_bytes"]) for name, (_, _, at) in sent.items()}
    assert told == {name: ("interactions", reason, value[:256]) for name, (value, reason, _) in sent.items()}
    assert set(found) == {at for _, _, at in sent.values()}
    assert all(record["detail"] for record in found.values())


def test_no_job_restarts(letters):
    loop, _, before, _, _ = letters
    assert set(before["lives"]) == {"features", "samples", "train", "vectors"}
    assert loop.lives() == before["lives"]


def test_good_events_around_them_are_learnt(letters):
    _, _, _, good, learnt = letters
    assert learnt == {item: 1.0 for item in good}
