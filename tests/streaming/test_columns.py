"""SQL columns follow the .avsc files."""

import pytest

from headrace.schemas.codec import SCHEMAS
from headrace.streaming.columns import columns, names, sql_type


@pytest.mark.parametrize(("avro", "sql"), [
    ("string", "STRING NOT NULL"), (["null", "string"], "STRING"), ("long", "BIGINT NOT NULL"), (["null", "double"], "DOUBLE"),
    ({"type": "array", "items": "string"}, "ARRAY<STRING NOT NULL> NOT NULL"),
    ({"type": "map", "values": "string"}, "MAP<STRING NOT NULL, STRING NOT NULL> NOT NULL"),
])
def test_nullability_is_kept_down_to_items(avro, sql):
    assert sql_type(avro) == sql


def test_a_union_of_two_values_is_refused():
    with pytest.raises(AssertionError, match="unions of null"):
        sql_type(["null", "string", "long"])


@pytest.mark.parametrize("schema", ["enriched", "samples", "touched", "vectors", "dead-letters"])
def test_every_field_of_the_tables_we_use_has_a_type(schema):
    assert [name for name, _ in columns(schema)] == names(schema) == [field["name"] for field in SCHEMAS[schema]["fields"]]
