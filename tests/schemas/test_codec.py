"""Guards of the codec: each fault has its reason code, and none reaches fastavro."""

from __future__ import annotations

import io
import json
import struct

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.codec import SCHEMAS, Codec, schema_name, schema_text
from headrace.schemas.errors import Malformed, RegistryUnavailable, UnknownSchema
from headrace.schemas.interaction import check_interaction
from headrace.schemas.registry_store import SchemaStore

RECORD = {
    "event_id": "e1", "request_id": None, "scene": "feed", "user_id": "u1", "item_id": "i1", "action": "impression", "value": 1.0,
    "position": 3, "ts_ms": 1_700_000_000_000, "context": {"user.age": "25", "hour": "13"}, "exposure": None}


class Texts:
    """A registry of given texts; counts the questions."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.asked = 0
        self.down = False

    def register(self, subject: str, text: str) -> int:
        self.texts.append(text)
        return len(self.texts)

    def schema(self, schema_id: int) -> str:
        self.asked += 1
        if self.down:
            raise RegistryUnavailable("down")
        if not 1 <= schema_id <= len(self.texts):
            raise UnknownSchema(str(schema_id))
        return self.texts[schema_id - 1]


def message(datum: bytes, schema_id: int = 1) -> bytes:
    return struct.pack(">bI", 0, schema_id) + datum


def reason(codec: Codec, data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        codec.decode(data)
    assert caught.value.detail
    return caught.value.reason


@pytest.fixture
def codec() -> Codec:
    return Codec("interactions", SchemaStore())


def test_round_trip_and_defaults(codec):
    assert codec.decode(codec.encode(RECORD)) == RECORD
    short = {name: RECORD[name] for name in ("event_id", "user_id", "item_id", "action", "ts_ms")}
    assert codec.decode(codec.encode(short)) == {**RECORD, "scene": "", "position": None, "context": {}}


def test_defaults_of_bytes_are_bytes():
    codec = Codec("dead-letters", SchemaStore())
    record = codec.decode(codec.encode({"topic": "t", "partition": 0, "offset": 1, "reason": "r", "ts_ms": 1}))
    assert record["first_bytes"] == b""


def test_header_faults(codec):
    good = codec.encode(RECORD)
    assert reason(codec, None) == "null_value"
    assert reason(codec, b"") == "empty"
    assert reason(codec, b"\x01" + good[1:]) == "bad_magic"
    with pytest.raises(Malformed, match="looks like JSON"):
        codec.decode(b' {"user_id": "u"}')
    assert reason(codec, good[:5]) == "short_header"
    assert reason(codec, good[:1] + struct.pack(">I", 77) + good[5:]) == "unknown_schema"
    assert reason(Codec("interactions", SchemaStore(), bytes_max=20), good) == "oversized"
    with pytest.raises(Malformed, match="oversized"):
        codec.decode(good, bytes_max=20)


def test_a_string_that_is_not_utf8(codec):
    assert reason(codec, codec.encode(RECORD).replace(b"feed", b"f\xff\xfed")) == "bad_utf8"


def test_every_cut_is_refused_and_so_is_every_tail(codec):
    good = codec.encode(RECORD)
    for end in range(6, len(good)):
        assert reason(codec, good[:end]) in ("truncated", "bad_block_count", "bad_length")
    assert reason(codec, good + b"\x00") == "trailing_bytes"


@given(st.binary(max_size=200), st.integers(0, 60))
@settings(max_examples=500, deadline=None)
def test_no_byte_soup_does_more_than_raise_malformed(soup, at):
    codec = Codec("interactions", SchemaStore())
    good = codec.encode(RECORD)
    for data in (message(soup), good[: 5 + at] + soup, good[: 5 + at] + soup + good[5 + at + len(soup):]):
        try:
            record = codec.decode(data)
        except Malformed:
            continue
        assert record.keys() == RECORD.keys()


@pytest.mark.parametrize(("field", "datum", "expected"), [
    ({"type": ["null", "string"]}, b"\x01", "bad_union_index"),  # -1: fastavro takes the last branch
    ({"type": ["null", "string"]}, b"\x04", "bad_union_index"),
    ({"type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}}, b"\x01", "bad_enum_index"),
    ({"type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}}, b"\x04", "bad_enum_index"),
    ({"type": "double"}, struct.pack("<d", float("nan")), "not_finite"),
    ({"type": "double"}, struct.pack("<d", float("-inf")), "not_finite"),
    ({"type": "float"}, struct.pack("<f", float("inf")), "not_finite"),
    ({"type": "int"}, b"\x80\x80\x80\x80\x20", "out_of_range"),
    ({"type": "long"}, b"\xff" * 9 + b"\x02", "out_of_range"),
    ({"type": "long"}, b"\xff" * 10 + b"\x01", "bad_varint"),
    ({"type": "long"}, b"\x82\x00", "bad_varint"),  # padded: another spelling of 1
    ({"type": {"type": "map", "values": "long"}}, b"\x04\x02a\x02\x02a\x04\x00", "duplicate_key"),
    ({"type": {"type": "map", "values": "long"}}, b"\x02\x02a\x02\x02\x02a\x04\x00", "duplicate_key"),  # in two blocks
    ({"type": {"type": "array", "items": "long"}}, b"\x03\x06\x02\x04\x06\x00", "bad_block_count"),  # 2 items take 2 bytes, not 3
    ({"type": {"type": "map", "values": {"type": "map", "values": "long"}}},
     b"\x04\x02a\x02\x02x\x02\x00\x02b\x02\x02x\x02\x00\x00", "unresolvable"),
    ({"type": "boolean"}, b"\x02", "bad_boolean"),
    ({"type": "string"}, b"\x01", "bad_length"),
    ({"type": "string"}, b"\xfe\xff\xff\xff\x0f", "truncated"),
    ({"type": "bytes"}, b"\x0aab", "truncated"),
    ({"type": {"type": "array", "items": "long"}}, b"\xfe\xff\xff\xff\x0f\x00", "bad_block_count"),
    ({"type": {"type": "map", "values": "null"}}, b"\xfe\xff\xff\xff\x0f\x00", "bad_block_count"),
    ({"type": {"type": "array", "items": "long"}}, b"\x01\xfe\x0f\x02\x00", "bad_block_count"),  # the block's size lies
    ({"type": {"type": "array", "items": "null"}}, b"\xfe\xff\xff\xff\x0f\x00", "bad_schema"),
    ({"type": {"type": "fixed", "name": "X", "size": 4}}, b"ab", "truncated"),
])
def test_guards_by_type(field, datum, expected):
    text = json.dumps({"type": "record", "name": "Interaction", "namespace": "org.headrace", "fields": [{"name": "x", **field}]})
    assert reason(Codec("interactions", Texts(text)), message(datum)) == expected


def test_blocks_are_read_and_a_padded_count_is_not():
    more = {"name": "more", "type": {"type": "array", "items": "long"}}
    text = _record([*SCHEMAS["touched"]["fields"][:6], {"name": "ts_ms", "type": "long"}, more], "Touched")
    codec = Codec("touched.fm", Texts(text))
    head = b"\x02\x02\x02" + b"\x02u" + b"\x02i" + b"\x02m\x02"
    assert reason(codec, message(head + b"\x80\x00")) == "bad_varint"
    assert codec.decode(message(head + b"\x01\x02\x06\x00"))["id"] == "i"  # a block with its size
    assert reason(codec, message(head + b"\x00\x00")) == "trailing_bytes"


def _record(fields: list, name: str = "Interaction") -> str:
    return json.dumps({"type": "record", "name": name, "namespace": "org.headrace", "fields": fields})


def _deep(levels: int) -> object:
    kind: object = "long"
    for _ in range(levels):
        kind = {"type": "array", "items": kind}
    return kind


def _doubling(levels: int) -> list:
    fields = [{"name": "f0", "type": {"type": "record", "name": "R0", "fields": [{"name": "x", "type": "long"}]}}]
    for n in range(1, levels):
        inner = [{"name": "a", "type": f"R{n - 1}"}, {"name": "b", "type": f"R{n - 1}"}]
        fields.append({"name": f"f{n}", "type": {"type": "record", "name": f"R{n}", "fields": inner}})
    return fields


@pytest.mark.parametrize(("text", "expected"), [
    (_record([{"name": "next", "type": ["null", "Interaction"]}]), "bad_schema"),
    (_record([{"name": "deep", "type": _deep(40)}]), "bad_schema"),
    (_record([{"name": "deep", "type": _deep(150)}]), "bad_schema"),
    ("[" * 100_000 + "]" * 100_000, "bad_schema"),
    (_record(_doubling(30)), "bad_schema"),
    (_record([{"name": "x", "type": "long"}], "Other"), "wrong_record"),
    ("\"string\"", "wrong_record"),
    ("no json", "bad_schema"),
    (_record([{"name": "x", "type": "nothing"}]), "bad_schema"),
    (_record([{"name": "x", "type": "long"}]), "unresolvable"),  # our fields without default are missing
    (" " * (300 << 10), "bad_schema"),
])
def test_guards_of_writer_schemas(text, expected):
    assert reason(Codec("interactions", Texts(text)), message(b"\x00")) == expected


def test_an_unknown_schema_is_asked_for_once_in_a_while_and_an_absent_registry_is_not_the_records_fault(monkeypatch):
    registry = Texts()
    codec = Codec("interactions", registry)
    for _ in range(5):
        assert reason(codec, message(b"\x00", 9)) == "unknown_schema"
    assert registry.asked == 1
    clock = [1e6]
    monkeypatch.setattr("headrace.schemas.codec.time.monotonic", lambda: clock[0])
    registry.down = True
    for _ in range(2):
        with pytest.raises(RegistryUnavailable):
            codec.decode(message(b"\x00", 10))
    assert registry.asked == 3
    registry.down = False
    clock[0] += 11
    assert reason(codec, message(b"\x00", 9)) == "unknown_schema"
    assert registry.asked == 4


def test_a_newer_writer_resolves_to_our_schema():
    newer = json.loads(schema_text("interactions"))
    newer["fields"] = [{"name": "extra", "type": "long", "default": 0}, *(f for f in newer["fields"] if f["name"] != "scene")]
    store = SchemaStore()
    codec = Codec("interactions", store)
    codec.encode(RECORD)
    writer_id = store.register("interactions-value", json.dumps(newer))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(newer), {**RECORD, "extra": 5})
    assert codec.decode(message(out.getvalue(), writer_id)) == {**RECORD, "scene": ""}


def test_a_logical_type_stays_a_number():
    other = json.loads(schema_text("interactions"))
    other["fields"] = [{**f, "type": {"type": "long", "logicalType": "timestamp-millis"}} if f["name"] == "ts_ms" else f
                       for f in other["fields"]]
    codec = Codec("interactions", Texts(json.dumps(other)))
    own = Codec("interactions", SchemaStore())
    assert codec.decode(message(own.encode(RECORD)[5:]))["ts_ms"] == RECORD["ts_ms"]


@pytest.mark.parametrize(("ts_ms", "unit"), [
    (1_700_000_000, "seconds"), (1_700_000_000_000_000, "microseconds"), (1_700_000_000_000_000_000, "nanoseconds"), (0, "2100")])
def test_a_time_in_another_unit_is_named(ts_ms, unit):
    with pytest.raises(Malformed, match=f"{unit}$"):
        check_interaction({**RECORD, "ts_ms": ts_ms})


@pytest.mark.parametrize(("change", "expected"), [
    ({"user_id": ""}, "empty_id"), ({"item_id": ""}, "empty_id"), ({"user_id": "u" * 257}, "long_id"), ({"item_id": "é" * 129}, "long_id"),
    ({"request_id": "r" * 257}, "long_id"), ({"scene": "s" * 257}, "long_id"),
    ({"user_id": "u\n"}, "control_character"), ({"item_id": "i\x00"}, "control_character"), ({"request_id": "\x85"}, "control_character"),
    ({"action": "click\r"}, "control_character"), ({"value": 1e39}, "bad_value"), ({"value": -1e300}, "bad_value"),
    ({"position": -1}, "bad_position"), ({"context": {"a=b": "c"}}, "bad_context"),
    ({"action": ""}, "bad_action"), ({"action": "a" * 65}, "bad_action"), ({"action": "click,like"}, "bad_action"),
    ({"ts_ms": 0}, "bad_ts"), ({"ts_ms": -5}, "bad_ts"), ({"ts_ms": 1_700_000_000}, "bad_ts"), ({"ts_ms": 1_700_000_000_000_000}, "bad_ts"),
    ({"context": {str(n): "" for n in range(65)}}, "bad_context"), ({"context": {"a": "é" * 513}}, "bad_context"),
    ({"context": {"": "a"}}, "bad_context"),
    ({"exposure": {"feature_keys": b"1234567", "feature_values": b"", "numbers": b""}}, "bad_exposure"),
    ({"exposure": {"feature_keys": b"12345678", "feature_values": b"", "numbers": b""}}, "bad_exposure"),
    ({"exposure": {"feature_keys": b"12345678", "feature_values": b"1234", "numbers": b"1"}}, "bad_exposure"),
    ({"exposure": {"feature_keys": b"12345678", "feature_values": b"1234", "numbers": b""}}, "bad_exposure"),  # of no feature set
    ({"exposure": {"feature_keys": b"", "feature_values": b"", "numbers": b"", "score": 1.5}}, "bad_score"),
    ({"exposure": {"feature_keys": b"12345678", "feature_values": struct.pack("<f", float("nan")), "numbers": b""}}, "not_finite"),
    ({"exposure": {"feature_keys": b"", "feature_values": b"", "numbers": struct.pack("<f", float("inf"))}}, "not_finite"),
])
def test_check_interaction(change, expected):
    with pytest.raises(Malformed) as caught:
        check_interaction({**RECORD, **change})
    assert caught.value.reason == expected


def test_check_interaction_accepts():
    check_interaction(RECORD)
    check_interaction({**RECORD, "user_id": "", "item_id": "", "action": "heartbeat"})
    check_interaction({**RECORD, "user_id": "u" * 256, "context": {"a": "b" * 1024}})
    exposure = {"feature_set": "x@1", "feature_keys": b"12345678", "feature_values": b"1234", "numbers": b""}
    check_interaction({**RECORD, "exposure": exposure})
    check_interaction({**RECORD, "user_id": "用户", "item_id": "👩‍🍳", "scene": "a b", "value": 3.4e38, "position": 0})
    check_interaction({**RECORD, "ts_ms": 874_724_710_000})  # MovieLens, 1997


_KINDS = {
    "string": st.text(max_size=20), "bytes": st.binary(max_size=40), "int": st.integers(-(1 << 31), (1 << 31) - 1),
    "long": st.integers(-(1 << 63), (1 << 63) - 1), "double": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(), "null": st.none()}


def _values(schema: object) -> st.SearchStrategy:
    if isinstance(schema, list):
        return st.one_of(*map(_values, schema))
    if isinstance(schema, str):
        return _KINDS[schema]
    assert isinstance(schema, dict)
    if schema["type"] == "record":
        return st.fixed_dictionaries({field["name"]: _values(field["type"]) for field in schema["fields"]})
    if schema["type"] == "array":
        return st.lists(_values(schema["items"]), max_size=5)
    return st.dictionaries(st.text(max_size=8), _values(schema["values"]), max_size=5)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_every_schema_goes_there_and_back(name, data):
    record = data.draw(_values(SCHEMAS[name]))
    codec = Codec(name, SchemaStore())
    assert codec.decode(codec.encode(record)) == record


def test_topics_of_a_model_share_a_schema():
    assert (schema_name("touched.fm"), schema_name("weights.lr"), schema_name("enriched")) == ("touched", "weights", "enriched")
    assert Codec("touched.fm", SchemaStore()).subject == "touched.fm-value"
    with pytest.raises(KeyError):
        schema_name("nothing")
