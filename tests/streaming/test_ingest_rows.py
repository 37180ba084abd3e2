"""Rows of a topic through a mapping: what a file of the same rows says, whatever stands beside them; and each reason for a refusal."""

import io
import json
import math

import fastavro
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import replay, rows
from headrace.readers import ReadError
from headrace.schemas.interaction import check_interaction
from headrace.schemas.mapping import MappingError, parse
from headrace.streaming.ingest_rows import IngestRows

T = 1_600_000_000
MAPPING = {"columns": {"user_id": "user", "item_id": "item", "ts": "t", "label": "rating >= 4", "action": "like"},
           "context": {"fields": ["hour", "device.os"]}, "user": {"fields": ["age"]}, "item": {"fields": ["genre"], "separator": ","}}
GOOD = {"user": "u", "item": "i", "t": T, "rating": 5}


def made(given, mapping=None):
    found = IngestRows(parse(mapping or MAPPING)).make(given, [f"n-{row}" for row in range(len(given))])
    assert len(found.at) == len(found.exposures) and sorted(found.at + [row for row, _ in found.refused]) == list(range(len(given)))
    return found


def reasons(given, mapping=None):
    return {row: error.reason for row, error in made(given, mapping).refused}


def by_file(path, given, mapping):
    """The naive twin: a file of JSON lines with `given` through headrace replay's own reader and sender, names as `made` gives them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    try:
        found = rows.load(path, mapping)
    except Exception:
        return None
    sent = []
    for (key, impression, action), row in zip(replay.interactions(found, slice(0, len(found))), found.row.tolist(), strict=True):
        for record in (impression, action):
            if record is not None:
                sent.append((row, key, {**record, "request_id": f"n-{row}", "event_id": f"n-{row}{record['event_id'][-2:]}"}))
    return sent


def by_topic(given, mapping):
    found = IngestRows(mapping).make(given, [f"n-{row}" for row in range(len(given))])
    return [(row, key, record) for row, (key, *records) in zip(found.at, found.exposures, strict=True) for record in records if record]


TEXTS = st.one_of(st.none(), st.text(max_size=3), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False, width=16),
                  st.booleans(), st.just({"a": 1}), st.integers(2**62, 2**66),
                  st.lists(st.one_of(st.text(max_size=2), st.integers(0, 3)), max_size=2))
TIMES = st.one_of(st.none(), st.integers(T, T + 9), st.floats(T, T + 9), st.sampled_from(
    [str(T), "2020-09-13T12:26:40Z", "2020-09-13 12:26:40.250", "soon", "", True, T * 1000, [T], "nan", "1e400", -1]))
LABELS = st.one_of(st.none(), st.integers(0, 5), st.floats(0, 5), st.booleans(), st.sampled_from(["4", "3.5", "yes", "", "nan", [5], {}]))
ROW = st.fixed_dictionaries({"user": TEXTS, "item": TEXTS, "t": TIMES, "rating": LABELS}, optional={
    "hour": TEXTS, "device.os": TEXTS, "age": TEXTS, "genre": TEXTS})
FILE = {**MAPPING, "context": {"fields": ["hour"]}, "user": {}, "item": {}}  # a file must have its columns


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, min_size=1, max_size=6))
def test_a_record_is_what_a_file_of_that_row_alone_is(tmp_path_factory, given):
    """In a batch of anything: each row on its own, by the file's own code."""
    mapping, folder = parse(FILE), tmp_path_factory.mktemp("twin")
    given = [orjson.loads(json.dumps({"hour": None, **row})) for row in given]
    found = {}
    for row, key, record in by_topic(given, mapping):
        found.setdefault(row, []).append((key, record))
    for row, one in enumerate(given):
        alone = by_file(folder / "one.jsonl", [one], mapping)
        told = [] if alone is None else [(key, renamed(record, row)) for _, key, record in alone]
        try:
            for _, record in told:
                check_interaction(record)
        except Exception:
            told = []
        assert found.get(row, []) == told, one


def renamed(record, row):
    return {**record, "request_id": f"n-{row}", "event_id": f"n-{row}{record['event_id'][-2:]}"}


def test_a_log_is_the_same_from_a_file_and_from_a_topic(tmp_path):
    given = [{"user": f"{n % 7:03}", "item": n % 11, "t": T + n // 3, "rating": n % 6, "hour": n % 24, "age": None if n % 5 else 30 + n % 3,
              "genre": ["a", "b"][: n % 3], "device.os": "x"} for n in range(500)]
    mapping = parse({**MAPPING, "user": {"fields": ["age"]}})
    assert by_topic(given, mapping) == by_file(tmp_path / "log.jsonl", given, mapping)


def test_one_row_is_an_impression_and_its_action_keyed_by_the_user():
    (key, impression, action), = made([{**GOOD, "user": 7, "device": {"os": "ios"}, "genre": ["a", "b"], "age": 30}]).exposures
    assert key == b"7" and (impression["event_id"], action["event_id"]) == ("n-0-i", "n-0-a")
    assert (impression["action"], action["action"], impression["request_id"]) == ("impression", "like", "n-0")
    assert impression["ts_ms"] == action["ts_ms"] == T * 1000
    assert impression["context"] == {"device.os": "ios", "user.age": "30", "item.genre": "a|b"}
    assert made([{**GOOD, "rating": 3}]).exposures[0][2] is None


def test_a_name_with_dots_is_a_field_before_it_is_a_path():
    assert made([{**GOOD, "device.os": "a", "device": {"os": "b"}}]).exposures[0][1]["context"]["device.os"] == "a"
    assert "device.os" not in made([{**GOOD, "device": "b"}]).exposures[0][1]["context"]


@pytest.mark.parametrize(("change", "reason"), [
    ({"user": None}, "missing_field"), ({"t": None}, "missing_field"), ({"item": ""}, "empty_id"), ({"user": {"id": 1}}, "bad_type"),
    ({"t": "soon"}, "bad_ts"), ({"t": T * 1000}, "bad_ts"), ({"t": [T]}, "bad_type"), ({"t": math.inf}, "bad_ts"),
    ({"t": math.nan}, "bad_ts"), ({"rating": "good"}, "bad_type"), ({"rating": {"stars": 4}}, "bad_type"),
    ({"user": "u" * 300}, "long_id"), ({"item": "i\n"}, "control_character"),
    ({"hour": "h" * 2000}, "bad_context"), ({"genre": ["a", 1]}, "bad_type"),
])
def test_what_is_wrong_with_a_row_is_said_and_its_neighbours_go_on(change, reason):
    assert reasons([GOOD, {**GOOD, **change}, GOOD]) == {1: reason}
    (_, error), = made([{**GOOD, **change}]).refused
    assert error.detail and len(error.detail) <= 400


def test_a_field_that_is_not_there_is_named():
    (_, error), = made([{"item": "i", "t": T, "rating": 1}]).refused
    assert (error.reason, error.detail) == ("missing_field", "column 'user' is null")


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)])
def test_units_of_time(unit, factor):
    times = (T * factor, str(T * factor), "2020-09-13T12:26:40Z")
    found = made([{**GOOD, "t": time} for time in times], {**MAPPING, "time_unit": unit})
    assert [exposure[1]["ts_ms"] for exposure in found.exposures] == [T * 1000] * 3


def test_avros_own_times_know_their_unit():
    """A file's container and a topic's record are read by one library, logical types included."""
    schema = fastavro.parse_schema({"type": "record", "name": "R", "fields": [
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}}]})
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, {"t": T * 10**6})
    row = fastavro.schemaless_reader(io.BytesIO(out.getvalue()), schema, None)
    assert made([{**GOOD, **row}]).exposures[0][1]["ts_ms"] == T * 1000


def test_a_file_refuses_what_a_topic_refuses(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({**GOOD, "user": None, "hour": 1}) + "\n")
    with pytest.raises(ReadError, match="is null"):
        rows.load(tmp_path / "a.jsonl", parse(FILE))


EVENTS = {"columns": {"user_id": "user", "item_id": "item", "ts": "t", "event": "type", "request_id": "request"},
          "context": {"fields": ["hour"]}, "events": {"view": "impression", "buy": "click", "scroll": ""}}


def event(name, **more):
    return {"user": "u", "item": "i", "t": T, "type": name, "request": "r1", **more}


def test_records_of_one_event_each_are_called_as_the_mapping_says():
    found = made([event("view", hour=3), event("buy"), event("buy", request=None)], EVENTS)
    told = [(record["event_id"], record["action"], record["request_id"]) for _, record, _ in found.exposures]
    assert told == [("n-0-e", "impression", "r1"), ("n-1-e", "click", "r1"), ("n-2-e", "click", None)]
    assert found.exposures[0][1]["context"] == {"hour": "3"} and found.exposures[0][0] == b"u" and found.exposures[0][2] is None


def test_events_without_a_name_here_are_refused_left_aside_or_all_others():
    given = [event("view"), event("scroll", user=None, t="soon"), event("wave"), event(None), event("buy", user=None)]
    found = IngestRows(parse(EVENTS)).make(given, [f"n-{n}" for n in range(5)])
    assert {row: error.reason for row, error in found.refused} == {2: "bad_action", 3: "missing_field", 4: "missing_field"}
    assert found.aside == {"scroll": 1} and found.at == [0] and "'wave', which [events] does not name" in found.refused[0][1].detail
    found = IngestRows(parse({**EVENTS, "events": {**EVENTS["events"], "*": ""}})).make(given, [f"n-{n}" for n in range(5)])
    assert found.aside == {"scroll": 1, "wave": 1} and [row for row, _ in found.refused] == [3, 4]


def test_a_file_of_events_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(event("view", hour=1)) + "\n")
    with pytest.raises(MappingError, match="is of topics"):
        rows.load(tmp_path / "a.jsonl", parse(EVENTS))
