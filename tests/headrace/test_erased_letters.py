"""Whose a dead letter is."""

import pytest

from headrace.erased_letters import avro_text, is_of
from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore


def letter(first_bytes=b"", detail=""):
    return {"topic": "interactions", "partition": 0, "offset": 1, "reason": "late", "detail": detail, "first_bytes": first_bytes,
            "ts_ms": 1}


def test_by_its_record_where_that_is_there():
    assert is_of(letter(b"u2"), {"user_id": "u1", "item_id": "i"}, "user", "u1")
    assert not is_of(letter(b"u1"), {"user_id": "u2", "item_id": "u1"}, "user", "u1")


@pytest.mark.parametrize("bytes_, detail, wanted", [
    (b'{"user_id": "u1"}', "", True), (b'{"user_id": "u12"}', "", False), (b"", "user u1 has no time", True), (b"", "of u-u1", False),
    (b"\x00\x00" + avro_text("u1") + b"abc", "", True), (b"\xff\xfe", "", False)])
def test_by_its_bytes_and_its_sentence_where_not(bytes_, detail, wanted):
    assert is_of(letter(bytes_, detail), None, "user", "u1") == wanted


@pytest.mark.parametrize("name", ["u", "a" * 63, "a" * 64, "b" * 9000, "ü" * 70])
def test_avro_writes_it_so(name):
    store = SchemaStore()
    value = Codec("interactions", store).encode({"event_id": "e", "user_id": name, "item_id": "i", "action": "click", "ts_ms": 1})
    assert avro_text(name) in value
