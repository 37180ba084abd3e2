"""Reading as far as it goes: all of a good datum, and of a cut one what came before the cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.codec import SCHEMAS, Codec
from headrace.schemas.errors import Malformed
from headrace.schemas.peek import peek, shown
from headrace.schemas.reasons import table
from headrace.schemas.registry_store import SchemaStore
from tests.schemas.test_codec import Texts, _values, message
from tests.schemas.test_fuzz import FULL

CODEC = Codec("interactions", SchemaStore())
GOOD = CODEC.encode(FULL)
SCHEMA = CODEC.writer_schema(GOOD)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_a_good_datum_is_read_whole(name, data):
    record, codec = data.draw(_values(SCHEMAS[name])), Codec(name, SchemaStore())
    encoded = codec.encode(record)
    assert peek(codec.writer_schema(encoded), encoded) == (record, "")


def test_a_cut_datum_is_read_up_to_the_cut():
    before = 0
    for end in range(6, len(GOOD)):
        fields, fault = peek(SCHEMA, GOOD[:end])
        assert fault and list(FULL)[: len(fields)] == list(fields)  # in the schema's order, none left out
        whole = [name for name in list(fields)[:-1] if name != "exposure"]
        assert {name: fields[name] for name in whole} == {name: FULL[name] for name in whole} and len(fields) >= before
        before = len(fields)
    assert peek(SCHEMA, GOOD + b"xyz") == (FULL, f"byte {len(GOOD)}: 3 bytes after the datum")


@given(st.binary(max_size=80), st.integers(5, len(GOOD)))
@settings(max_examples=200, deadline=None)
def test_no_damage_does_more_than_end_it(soup, at):
    fields, _ = peek(SCHEMA, GOOD[:at] + soup + GOOD[at + len(soup) :])
    assert all(len(shown(value)) < 300 and shown(value).isprintable() for value in fields.values())


def test_what_is_not_utf8_is_shown_as_bytes_and_a_schema_that_recurses_is_refused():
    fields, _ = peek(SCHEMA, GOOD.replace("用户-1".encode(), b"\xff" * 8))
    assert fields["user_id"] == b"\xff" * 8
    text = json.dumps({"type": "record", "name": "Interaction", "namespace": "org.headrace",
                       "fields": [{"name": "next", "type": ["null", "Interaction"]}]})
    with pytest.raises(Malformed, match="recursive"):
        Codec("interactions", Texts(text)).writer_schema(message(b"\x00"))


def test_the_page_holds_the_table():
    page = (Path(__file__).parents[2] / "docs" / "dead-letters.md").read_text()
    assert page.endswith(table() + "\n"), "python -c 'from headrace.schemas.reasons import table; print(table())'"
