"""Nothing decodes to a wrong value silently: damaged messages are refused, or read as an independent strict reader reads them."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.codec import SCHEMAS, Codec
from headrace.schemas.errors import Malformed
from headrace.schemas.registry_store import SchemaStore
from tests.naive import AvroReader
from tests.schemas.test_codec import RECORD, Texts, _values, message

EXPOSURE = {"feature_set": "base@1", "feature_keys": bytes(range(16)), "feature_values": struct.pack("<2f", 1, -2.5), "numbers": b"",
            "features_sequence": 70_000, "model": "fm", "version": 1 << 40, "score": 0.25, "arms": ["a=b", "c=d"]}
FULL = {**RECORD, "request_id": "r1", "user_id": "用户-1", "exposure": EXPOSURE, "context": {"a": "1", "b": "", "c": "3"}}
MATERIAL = {"item_id": "i", "deleted": True, "tags": ["x", "y"], "fields": {"a": "b"}, "quality": 0.5, "vector": b"1234", "ts_ms": 1 << 40}
NAMES = ("interactions", "samples", "dead-letters", "materials")


def check(name: str, codec: Codec, data: bytes) -> bool:
    """Decode `data`: refused, or the value of the strict reader, which has no other spelling but in other blocks. Whether it was read."""
    reader = AvroReader(SCHEMAS[name], data[5:])
    try:
        record = codec.decode(data)
    except Malformed:
        with pytest.raises((ValueError, IndexError)):
            reader.read()
        return False
    assert record == reader.read()
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(SCHEMAS[name]), record)
    assert reader.framed or out.getvalue() == data[5:]
    assert repr(codec.decode(data[:5] + out.getvalue())) == repr(record)  # repr: -0.0 is not 0.0
    return True


@pytest.fixture(scope="module")
def codecs():
    return {name: Codec(name, SchemaStore()) for name in NAMES}


@pytest.mark.parametrize(("name", "record", "blocks"), [
    ("interactions", FULL, False), ("interactions", FULL, True), ("materials", MATERIAL, False)])
def test_every_bit_flipped_and_every_cut(codecs, name, record, blocks):
    codec, read = codecs[name], 0
    good = codec.encode(record)
    if blocks:
        entries = b"".join(_text(key) + _text(value) for key, value in record["context"].items())
        good = good.replace(_number(3) + entries, _number(-3) + _number(len(entries)) + entries)
        assert check(name, codec, good)
    for at in range(5, len(good)):
        for bit in range(8):
            read += check(name, codec, good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
        if at > 5:
            assert not check(name, codec, good[:at])
    assert read > len(good)  # many flips are within texts and numbers, and give another good message


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_of_any_kind(codecs, name, data):
    codec = codecs[name]
    good = bytearray(codec.encode(data.draw(_values(SCHEMAS[name]))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(5, len(good)))
        kind = data.draw(st.sampled_from(("replace", "insert", "remove")))
        soup = data.draw(st.binary(max_size=8))
        good[at : at + (len(soup) if kind == "replace" else 4 if kind == "remove" else 0)] = b"" if kind == "remove" else soup
    if len(good) > 5:
        check(name, codec, bytes(good))


@pytest.mark.parametrize("seed", range(4))
def test_maps_and_arrays_in_blocks_are_read_as_what_they_are(codecs, seed):
    """Blocks are the one freedom that an Avro writer has."""
    draw, codec = random.Random(seed), codecs["interactions"]
    context = {f"name{n}": "v" * draw.randrange(5) for n in range(draw.randrange(1, 9))}
    plain = codec.encode({**FULL, "context": context})
    entries = [_text(name) + _text(value) for name, value in context.items()]
    whole = _number(len(entries)) + b"".join(entries) + b"\x00"
    assert plain.count(whole) == 1
    blocks = b""
    while entries:
        part, entries = entries[: (cut := draw.randrange(1, len(entries) + 1))], entries[cut:]
        body = b"".join(part)
        blocks += (_number(-len(part)) + _number(len(body)) if draw.random() < 0.5 else _number(len(part))) + body
    assert check("interactions", codec, plain.replace(whole, blocks + b"\x00"))
    assert codec.decode(plain.replace(whole, blocks + b"\x00"))["context"] == context


def _number(n: int) -> bytes:
    unsigned, out = (n << 1) ^ (n >> 63), b""
    while unsigned > 127:
        out, unsigned = out + bytes([unsigned & 127 | 128]), unsigned >> 7
    return out + bytes([unsigned])


def _text(text: str) -> bytes:
    return _number(len(text.encode())) + text.encode()


def test_no_message_takes_memory_beyond_its_size(codecs):
    """Counts of two billion, at every byte of a message."""
    codec = codecs["interactions"]
    good, huge = codec.encode(FULL), b"\xfe\xff\xff\xff\x0f"
    tracemalloc.start()
    try:
        for at in range(5, len(good)):
            try:
                codec.decode(good[:at] + huge + good[at:])
            except Malformed:
                continue
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


_LEAVES = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string", "Interaction", "nothing", "", 3, None,
                           True, {}])
_NAMES = st.sampled_from(["A", "B", "Interaction", "org.headrace.Interaction", "1", "", None, 5])
_SIZES = st.one_of(st.integers(-2, 5), st.sampled_from(["4", 1.5, None, True, 1 << 40]))


def _nodes(inner):
    fields = st.lists(st.fixed_dictionaries({"name": _NAMES, "type": inner}, optional={"default": _LEAVES}), max_size=4)
    return st.one_of(
        st.lists(inner, max_size=4), st.fixed_dictionaries({"type": st.just("array")}, optional={"items": inner}),
        st.fixed_dictionaries({"type": st.just("map")}, optional={"values": inner}), st.fixed_dictionaries({"type": inner}),
        st.fixed_dictionaries({"type": st.just("fixed"), "name": _NAMES}, optional={"size": _SIZES}),
        st.fixed_dictionaries({"type": st.just("enum"), "name": _NAMES}, optional={"symbols": st.lists(_NAMES, max_size=3)}),
        st.fixed_dictionaries({"type": st.sampled_from(["record", "error"]), "name": _NAMES, "fields": fields}))


@given(fields=st.lists(st.fixed_dictionaries({"name": _NAMES, "type": st.recursive(_LEAVES, _nodes, max_leaves=12)}), max_size=4),
       soup=st.binary(min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_writer_schema_does_more_than_be_refused(fields, soup):
    text = json.dumps({"type": "record", "name": "Interaction", "namespace": "org.headrace", "fields": fields})
    with pytest.raises(Malformed):  # none of these has our fields, so none can be read as ours
        Codec("interactions", Texts(text)).decode(message(soup))
