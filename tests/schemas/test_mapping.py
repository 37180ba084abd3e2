"""The mapping: what it accepts, and what it says of what it does not."""

from __future__ import annotations

import operator
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas.mapping import KEYS, Label, MappingError, label, load, parse, tomllib

EXAMPLES = Path(__file__).parents[2] / "examples"
COLUMNS = {"user_id": "u", "item_id": "i", "ts": "t", "label": "rating >= 4"}

EVENT = {"user_id": "u", "item_id": "i", "ts": "t", "event": "type"}


def test_examples_are_valid():
    files = sorted(EXAMPLES.glob("*.toml"))
    assert [file.stem for file in files] == ["kuairand", "movielens"]
    for file in files:
        load(file)


def test_everything_said_is_taken():
    mapping = parse({"time_unit": "ms", "columns": {**COLUMNS, "action": "like"}, "context": {"fields": ["hour"]},
                     "user": {"fields": ["age", "u"]}, "item": {"fields": ["genre"], "separator": ","}})
    assert mapping.label == Label("rating", ">=", 4.0)
    assert mapping.features == {"hour": ("hour", None), "user.age": ("age", "|"), "user.u": ("u", "|"), "item.genre": ("genre", ",")}
    assert mapping.columns == ("u", "i", "t", "rating", "hour", "age", "genre")
    assert mapping.texts == ("u", "i", "hour", "age", "genre")
    assert mapping.action == "like"


@pytest.mark.parametrize(("values", "says"), [
    ({"time_units": "s", "columns": COLUMNS}, "unknown key 'time_units'; the nearest is 'time_unit'"),
    ({"columns": {**COLUMNS, "users": "u"}}, "unknown key 'users'; the nearest is 'user_id'"),
    ({"columns": COLUMNS, "item": {"field": ["x"]}}, "unknown key 'field'; the nearest is 'fields'"),
    ({"columns": COLUMNS, "item": {"fields": "x"}}, "list of column names"),
    ({"columns": COLUMNS, "item": {"fields": [], "separator": ""}}, "separator"),
    ({"columns": COLUMNS, "context": {"fields": ["_hour"]}}, "kept out of the features"),
    ({"columns": COLUMNS, "context": 3}, "is a section, write [context]"),
    ({"columns": {"user_id": "u"}}, "[columns] lacks item_id"),
    ({"columns": {**COLUMNS, "ts": 3}}, "[columns] ts is 3"),
    ({"columns": {**COLUMNS, "action": "impression"}}, "no action of a user"),
    ({"time_unit": "min", "columns": COLUMNS}, 'write "s", "ms", "us" or "ns"'),
    ({"columns": COLUMNS, "source": {"form": "json"}}, "unknown key 'form'; the nearest is 'format'"),
    ({"columns": COLUMNS, "source": {"format": "xml"}}, "[source] format is 'xml'; write json, avro"),
    ({"columns": {**COLUMNS, "event": "type"}}, "[columns] event goes with a section [events]"),
    ({"columns": {**COLUMNS, "event": "type"}, "events": {"view": "impression"}}, "[columns] label and [events]"),
    ({"columns": COLUMNS, "events": {"view": "impression"}}, "[columns] lacks event"),
    ({"columns": EVENT, "events": {"buy": "click"}}, "has no impression"),
    ({"columns": EVENT, "events": {"view": "impression", "x": "a,b"}}, "[events] x is 'a,b'; write impression, click"),
    ({"columns": EVENT, "events": {"view": 1}}, "[events] view is 1"),
    ({"columns": {**COLUMNS, "label": "rating >= four"}}, "'four', which is no number"),
    ({"columns": {**COLUMNS, "label": "rating = 4"}}, "one of >= <= == != > <"),
    ({"columns": {**COLUMNS, "label": "rating == nan"}}, "nothing equals"),
])
def test_what_is_wrong_is_said(values, says):
    with pytest.raises(MappingError, match=says.replace("[", r"\[").replace("]", r"\]").replace("*", r"\*")):
        parse(values, "m.toml")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(MappingError, match="No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[columns\n")
    with pytest.raises(MappingError, match=r"bad\.toml"):
        load(tmp_path / "bad.toml")


def test_a_missing_column_is_named_with_those_that_are_there():
    with pytest.raises(MappingError, match=r"no column 'rating' .* nearest is 'ratings'; its columns: u, i, t, ratings"):
        parse({"columns": COLUMNS}).check(["u", "i", "t", "ratings"], "file.csv")


@given(st.sampled_from([">=", ">", "<=", "<", "==", "!="]), st.one_of(st.integers(-100, 100), st.floats(-1e6, 1e6)),
       st.lists(st.one_of(st.integers(-100, 100), st.floats(allow_infinity=True, allow_nan=True)), max_size=20),
       st.sampled_from(["", " ", "  "]))
def test_comparisons_equal_pythons(symbol, number, values, space):
    by_symbol = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq, "!=": operator.ne}
    parsed = label(f"a column{space}{symbol}{space}{number!r}")
    assert (parsed.column, parsed.number) == ("a column", float(number))
    expected = [value == value and by_symbol[symbol](float(value), float(number)) for value in values]  # noqa: PLR0124
    assert parsed.of(np.array(values, np.float64)).tolist() == expected


def test_a_bare_column_is_true_where_it_is_neither_zero_nor_null():
    assert label("is_click").of(np.array([0.0, 1.0, np.nan, -2.0])).tolist() == [False, True, False, True]


def test_every_key_is_reachable():
    assert set(KEYS[""]) == {"time_unit", *(section for section in KEYS if section)}


def test_the_mappings_of_the_docs_are_taken():
    text = (EXAMPLES.parent / "docs" / "ingest.md").read_text()
    blocks = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[columns]" in block]
    assert len(blocks) == 2
    for block in blocks:
        parse(tomllib.loads(block))
