"""[source] of a mapping: what it takes, and what it says of what it does not."""

from datetime import datetime, timezone

import pytest

from headrace.schemas.mapping import MappingError, parse
from headrace.schemas.source import FORMATS, Source, SourceError, source

COLUMNS = {"user_id": "u", "item_id": "i", "ts": "t", "label": "rating >= 4"}
NOON = 1_795_780_800_000


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_taken_and_defaults_are_the_beginning_and_new_rows(name):
    made = source({"format": name})
    assert made == Source(name, "earliest", ("c", "r")) and made.debezium == name.startswith("d") and made.avro == name.endswith("avro")


@pytest.mark.parametrize("value", ["2026-11-27T12:00:00Z", "2026-11-27T13:00:00+01:00", "2026-11-27 12:00:00",
                                   datetime(2026, 11, 27, 12, tzinfo=timezone.utc), datetime(2026, 11, 27, 12)])
def test_a_start_is_a_time_however_toml_or_a_person_writes_it(value):
    assert source({"format": "json", "start": value}).start == NOON


def test_changes_that_count():
    assert source({"format": "debezium-avro", "ops": ["c", "u", "c"]}).ops == ("c", "u")


@pytest.mark.parametrize(("values", "says"), [
    ({}, "format is None; write json, avro, debezium-json or debezium-avro"),
    ({"format": "protobuf"}, "protobuf is not read: .* Avro or JSON beside it"),
    ({"format": "Debezium-Protobuf"}, "protobuf is not read"),
    ({"format": "json", "start": "yesterday"}, "start is 'yesterday'; write earliest, latest or a time"),
    ({"format": "json", "start": 5}, "start is 5"),
    ({"format": "json", "ops": ["c"]}, "ops is of Debezium's changes"),
    ({"format": "debezium-json", "ops": ["c", "d"]}, r"deletions \(d\) never become interactions"),
    ({"format": "debezium-json", "ops": []}, "write a list of c, r, u"),
])
def test_what_is_wrong_is_said(values, says):
    with pytest.raises(SourceError, match=says):
        source(values)


def test_a_mapping_names_the_file_and_the_section():
    with pytest.raises(MappingError, match=r"m.toml: \[source\] format is 'protobuf'"):
        parse({"columns": COLUMNS, "source": {"format": "protobuf"}}, "m.toml")
    assert parse({"columns": COLUMNS}).source is None
    assert parse({"columns": COLUMNS, "source": {"format": "json"}}).source == Source("json")
