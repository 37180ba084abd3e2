"""A file checked without sending: each row counted once, told by its line, and the replay agrees."""

from __future__ import annotations

import json

import pytest

from headrace.audit import audit
from headrace.readers import ReadError
from headrace.rows import load
from headrace.schemas.mapping import parse

MAPPING = parse({"columns": {"user_id": "u", "item_id": "i", "ts": "t", "label": "y"}, "context": {"fields": ["c"]}})
GOOD = {"u": "u1", "i": "i1", "t": 1_600_000_000, "y": 1, "c": "x"}


def lines(tmp_path, *rows):
    path = tmp_path / "f.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_each_row_is_counted_once_and_told_by_its_line(tmp_path):
    path = lines(tmp_path, GOOD, {**GOOD, "u": None, "t": 5}, "", "{broken", {**GOOD, "i": ""}, {**GOOD, "t": 7}, {**GOOD, "u": "a\nb"},
                 {**GOOD, "u": "u2", "y": 0, "t": 1_600_000_009}, [1], {**GOOD, "c": "x" * 2000}, {**GOOD, "y": "much"})
    found = audit(path, MAPPING)
    assert (found.rows, found.accepted, found.rejected, found.positives, found.users, found.items) == (10, 2, 8, 1, 2, 1)
    assert (found.first_ms, found.last_ms) == (1_600_000_000_000, 1_600_000_009_000)
    said = {reason.reason: reason.first for reason in found.reasons}
    assert said == {
        "not readable": ["line 4: no JSON: unexpected character, expected a string key: line 1 column 2 (char 1)", "line 9: no JSON object",
                         "line 11: column 'y' is 'much', where earlier rows have 1"],
        "t is no time": ["line 2: column 't' is 5, which is no time between 1990 and 2100 in s",
                         "line 6: column 't' is 7, which is no time between 1990 and 2100 in s"],
        "i is empty": ["line 5: column 'i' is empty"],
        "control_character": ["line 7: user_id 'a\\nb' holds U+000A at character 1"],
        "bad_context": ["line 10: context entry 'c' is longer than 1024 bytes"]}
    assert sum(reason.count for reason in found.reasons) == found.rejected


def test_lines_of_csv_and_what_is_odd(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("u,i,t,y,c\na,i,1600000000,0,x\nb,i,1600000000,0\nc,i,never,0,x\n,i,1600000000,0,x\nd,i,1600000000,0,x\n")
    found = audit(path, MAPPING)
    assert (found.rows, found.accepted) == (5, 2)
    assert [one for reason in found.reasons for one in reason.first] == [
        "line 3: 4 columns where the header has 5", "line 4: column 't' is 'never', which is no number", "line 5: column 'u' is null"]
    assert [text.split(":")[0] for text in found.odd] == [
        "no row is a positive (y != 0)", "every row has another user", "all rows have one item", "all rows have one time"]


def test_a_row_longer_than_a_line_is_told_by_its_number(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text('u,i,t,y,c\na,i,1600000000,0,"x\nz"\n,i,1600000000,0,x\n')
    assert audit(path, MAPPING).reasons[0].first == ["row 1: column 'u' is null"]


def test_what_the_audit_accepts_whole_is_what_is_sent(tmp_path):
    path = lines(tmp_path, GOOD, {**GOOD, "u": "u2", "y": 0})
    found, rows = audit(path, MAPPING), load(path, MAPPING)
    assert (found.rejected, found.accepted, found.positives) == (0, len(rows), rows.positives)
    bad = lines(tmp_path, GOOD, {**GOOD, "u": ""})
    assert audit(bad, MAPPING).rejected == 1
    with pytest.raises(ReadError, match="row 1: column 'u' is empty"):
        load(bad, MAPPING)


def test_nothing_that_could_be_sent(tmp_path):
    found = audit(lines(tmp_path, {**GOOD, "t": 1}), MAPPING)
    assert (found.accepted, found.first_ms, found.odd) == (0, None, ["no row would be sent"])
