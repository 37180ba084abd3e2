"""Messages as rows: JSON, Avro and both of Debezium's, and what each reason for a refusal is provoked by."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore
from headrace.schemas.source import Source
from headrace.streaming.unwrap import BYTES_MAX, Unwrap, paths, values_of

JSON, AVRO, CHANGES, AVRO_CHANGES = (Source(name) for name in ("json", "avro", "debezium-json", "debezium-avro"))
VALUE = {"type": "record", "name": "Value", "fields": [{"name": "user", "type": "string"}, {"name": "n", "type": ["null", "long"]}]}
CHANGE = {"type": "record", "name": "Envelope", "fields": [
    {"name": "before", "type": ["null", VALUE], "default": None}, {"name": "after", "type": ["null", "Value"], "default": None},
    {"name": "op", "type": "string"}, {"name": "ts_ms", "type": ["null", "long"], "default": None}]}
VALUES = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2) |
                      st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=6)
ROWS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


class Texts:
    """A registry whose only schema, of id 1, is this."""

    def __init__(self, schema):
        self.text = json.dumps(schema)

    def schema(self, schema_id):
        if schema_id != 1:
            from headrace.schemas.errors import UnknownSchema

            raise UnknownSchema("not here")
        return self.text

    def register(self, subject, text):
        raise AssertionError("nothing is written")


def read(source, *messages, registry=None, **more):
    return Unwrap(source, registry or SchemaStore(), **more).read(list(messages))


def reason(source, message, **more):
    found = read(source, message, **more)
    assert not found.rows
    (at, error), = found.refused
    assert at == 0 and error.detail
    return error.reason


def as_json(value):
    return json.dumps(value).encode()


def avro(schema, record):
    import io

    import fastavro

    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), record)
    return b"\x00" + struct.pack(">I", 1) + out.getvalue()


@given(st.lists(ROWS, max_size=4))
def test_json_objects_are_rows_as_they_are(rows):
    found = read(JSON, *map(as_json, rows))
    assert (found.rows, found.at, found.refused) == (rows, list(range(len(rows))), [])


@given(ROWS, st.sampled_from("cr"), st.booleans(), st.sampled_from([None, {}, {"type": "struct"}]))
def test_the_row_after_a_change_is_the_row_with_or_without_a_schema(row, op, wrapped, schema):
    change = {"before": None, "after": row, "op": op, "source": {"ts_ms": 5}, "ts_ms": 6}
    found = read(CHANGES, as_json({"schema": schema, "payload": change} if wrapped else change))
    assert found.rows == [row] and not found.aside
    told, = read(CHANGES, as_json(change), envelope=True).rows
    assert values_of([told], "envelope.source.ts_ms") == [5] and values_of([told], "envelope.op") == [op]


def test_changes_that_do_not_count_are_counted_and_never_refused():
    def change(op, **more):
        return as_json({"op": op, "after": {"user": "u"}, **more})

    messages = [change("d", after=None), None, change("u"), change("t"), change("m"), change("c"), change("u")]
    found = read(CHANGES, *messages)
    assert found.at == [5] and found.refused == [] and found.aside == {"d": 1, "tombstone": 1, "u": 2, "t": 1, "m": 1}
    found = read(Source("debezium-json", ops=("u",)), *messages)
    assert found.at == [2, 6] and found.aside["c"] == 1


def test_avro_records_and_changes():
    row = {"user": "u", "n": None}
    assert read(AVRO, avro(VALUE, row), registry=Texts(VALUE)).rows == [row]
    registry = Texts(CHANGE)
    messages = [avro(CHANGE, {"after": row, "op": "c"}), avro(CHANGE, {"before": row, "op": "d"}), None]
    found = read(AVRO_CHANGES, *messages, registry=registry)
    assert found.rows == [row] and found.aside == {"d": 1, "tombstone": 1}


@pytest.mark.parametrize(("source", "message", "expected"), [
    (JSON, None, "null_value"), (AVRO, None, "null_value"), (JSON, b"", "empty"), (AVRO, b"", "empty"), (JSON, b"{", "not_json"),
    (JSON, b'{"a": NaN}', "not_json"), (JSON, b'"\xff"', "not_json"), (JSON, b"[1]", "bad_type"), (JSON, b"7", "bad_type"),
    (JSON, b" " * (BYTES_MAX + 1), "oversized"), (AVRO, bytes(BYTES_MAX + 1), "oversized"), (AVRO, b'{"a": 1}', "bad_magic"),
    (AVRO, b"\x00\x00\x00\x00\x01", "short_header"), (AVRO, b"\x00\x00\x00\x00\x09\x02u", "unknown_schema"),
    (AVRO, b"\x00\x00\x00\x00\x01\x02", "truncated"), (AVRO, b"\x00\x00\x00\x00\x01\x02u\x00\x00", "trailing_bytes"),
    (AVRO, b"\x00\x00\x00\x00\x01\x02\xff\x00", "bad_utf8"), (AVRO, b"\x00\x00\x00\x00\x01\x02u\x07", "bad_union_index"),
    (CHANGES, b"{}", "bad_envelope"), (CHANGES, b'{"op": "x", "after": {}}', "bad_envelope"), (CHANGES, b'{"op": "c"}', "bad_envelope"),
    (CHANGES, b'{"op": "c", "after": 3}', "bad_envelope"), (CHANGES, b'{"payload": null}', "bad_envelope"), (CHANGES, b"[]", "bad_type"),
    (CHANGES, b'{"op": {}}', "bad_envelope"), (CHANGES, b'{"op": ["c"], "after": {}}', "bad_envelope"), (JSON, b"[" * 5000, "not_json"),
])
def test_what_is_no_row_is_said(source, message, expected):
    assert reason(source, message, registry=Texts(VALUE)) == expected


def test_a_datum_that_is_no_record_and_a_schema_that_is_none():
    assert reason(AVRO, b"\x00\x00\x00\x00\x01\x02", registry=Texts("long")) == "bad_type"
    assert reason(AVRO, b"\x00\x00\x00\x00\x01\x02", registry=Texts({"type": "nonsense"})) == "bad_schema"
    time = {"type": "record", "name": "R", "fields": [{"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}
    assert reason(AVRO, b"\x00\x00\x00\x00\x01" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", registry=Texts(time)) == "bad_type"


def test_avro_is_named_where_json_is_expected():
    message = Codec("labels", SchemaStore()).header + b"x"
    (_, error), = read(JSON, message).refused
    assert "format avro" in error.detail


@given(st.binary(max_size=40), st.sampled_from([JSON, AVRO, CHANGES, AVRO_CHANGES]))
def test_any_bytes_are_a_row_or_a_reason(data, source):
    found = read(source, data, b"\x00\x00\x00\x00\x01" + data, registry=Texts(CHANGE))
    assert len(found.rows) + len(found.refused) + found.aside.total() == 2


def test_paths_of_a_row():
    row = {"a": 1, "b": {"c": {"d": 2}, "e": []}, "f": {}}
    assert paths(row) == ["a", "b.c.d", "b.e", "f"]
    assert values_of([row, {"b": 3}, {"b.c.d": 4, "b": {}}], "b.c.d") == [2, None, 4]
