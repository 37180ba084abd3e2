"""What `headrace ingest` looks at before it begins, and what it remembers; with a broker: tests/end_to_end/test_ingest.py."""

import json

import pytest

from headrace import ingest, ingests
from headrace.config import Config
from headrace.ingests import Definition, IngestError
from headrace.kafka import Record
from headrace.schemas import mapping as mappings
from headrace.schemas.mapping import MappingError
from headrace.schemas.registry_store import SchemaStore
from headrace.schemas.source import SourceError

T = 1_600_000_000
TOML = """
[columns]
user_id = "user"
item_id = "item"
ts = "t"
label = "rating >= 4"
[item]
fields = ["movie.genre"]
[source]
format = "{format}"
"""
GOOD = {"user": "u", "item": "i", "t": T, "rating": 5, "movie": {"genre": ["a"]}}


@pytest.fixture
def config(tmp_path):
    made = Config()
    made.stack.data_dir = tmp_path / "data"
    return made


@pytest.fixture
def define(tmp_path):
    def make(topic="shop.ratings", form="json", name=None, start=None, text=TOML):
        (tmp_path / "m.toml").write_text(text.replace("{format}", form))
        return ingests.define(topic, tmp_path / "m.toml", name, start)

    return make


def looked(definition, *values):
    values = [value if value is None or isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    records = [Record("shop.ratings", n % 2, n // 2, 0, None, value) for n, value in enumerate(values)]
    return ingest.looked(iter(records), definition, SchemaStore(), 65536)


def test_an_ingest_is_named_after_its_topic_and_kept_with_its_mapping(config, define):
    made = define("Shop.Ratings")
    assert (made.name, made.job, made.source.start) == ("shop-ratings", "ingest-shop-ratings", "earliest")
    ingests.save(config, made)
    assert ingests.load(config, "shop-ratings") == made and ingests.job_names(config) == ["ingest-shop-ratings"]
    assert ingests.load(config, "shop-ratings").mapping == made.mapping


@pytest.mark.parametrize("start", ["2026-11-27T12:00:00Z", "2026-11-27 12:00"])
def test_a_start_on_the_command_line_wins_and_is_kept_as_a_time(config, define, start):
    ingests.save(config, define(start=start))
    assert ingests.load(config, "shop-ratings").source.start == 1_795_780_800_000
    assert define(start="latest").source.start == "latest"
    assert define(text=TOML + "start = 2026-11-27T12:00:00Z\n").source.start == 1_795_780_800_000


def test_what_cannot_begin_is_a_sentence(config, define):
    with pytest.raises(MappingError, match="protobuf is not read"):
        define(form="protobuf")
    with pytest.raises(IngestError, match=r"has no \[source\]; write \[source\] and format"):
        define(text=TOML[: TOML.index("[source]")])
    with pytest.raises(SourceError, match="write earliest, latest or a time"):
        define(start="tomorrow")
    with pytest.raises(IngestError, match="names no ingest"):
        define(name="Ratings!")
    ingests.save(config, define("a", name="one"))
    with pytest.raises(IngestError, match="one is an ingest of topic a; choose another --name for b"):
        ingests.save(config, define("b", name="one"))
    with pytest.raises(IngestError, match="no ingest is called 'two' here; there are: one"):
        ingests.load(config, "two")


def test_a_topic_must_be_there_and_be_of_others(config, monkeypatch):
    monkeypatch.setattr("headrace.kafka.partitions", lambda cluster: {"interactions": 4, "shop.ratings": 1, "__consumer_offsets": 4})
    ingest.find(config, "shop.ratings")
    with pytest.raises(IngestError, match=r"no topic 'shop.rating' at .*; the nearest is 'shop.ratings'"):
        ingest.find(config, "shop.rating")
    for ours in ("interactions", "samples", "touched.fm", "dead-letters"):
        with pytest.raises(IngestError, match="headrace's own topic"):
            ingest.find(config, ours)


def test_records_that_fit_begin_at_once_and_so_does_an_empty_topic(define):
    found = looked(define(), GOOD, {**GOOD, "rating": 1})
    assert ingest.fit(define(), found) == "" and (found.audit.accepted, found.audit.positives) == (2, 1)
    assert ingest.fit(define(), looked(define())) == ""


@pytest.mark.parametrize(("value", "says"), [
    ({"userId": "u", "item": "i", "t": T, "rating": 5}, r"has no field 'user' .* nearest is 'userId'; their fields: userId, item, t"),
    ({**GOOD, "movie": {"genres": 1}}, r"no field 'movie.genre' .* nearest is 'movie.genres'"),
    ({**GOOD, "t": "soon"}, r"none of 1 records .* partition 0, offset 0: bad_ts: .*'soon'.* --check 1 shows"),
    (b"\x00\x00\x00\x00\x01\x02u", "cannot|none of 1 records of shop.ratings can be used as json; .*not_json.*format avro"),
    (None, "null_value"), ([GOOD], "no object with fields"),
])
def test_records_that_do_not_fit_are_told_of_before_anything_begins(define, value, says):
    import re

    assert re.search(says, ingest.fit(define(), looked(define(), value)))


def test_a_registry_without_the_schema_is_told_of(define):
    assert "unknown_schema" in ingest.fit(define(form="avro"), looked(define(form="avro"), b"\x00\x00\x00\x00\x09\x02u"))


def test_deletions_alone_are_no_reason_not_to_begin(define):
    made = define(form="debezium-json")
    found = looked(made, {"op": "d", "before": GOOD}, None)
    assert ingest.fit(made, found) == "" and found.aside == {"d": 1, "tombstone": 1} and found.audit.rejected == 0


def test_a_check_counts_every_record_under_what_is_wrong_first_and_says_where(define):
    found = looked(define(), GOOD, b"{", {**GOOD, "user": None}, {**GOOD, "item": "j"}, b"[")
    made = found.audit
    assert (made.rows, made.accepted, made.rejected, made.users, made.items) == (5, 2, 3, 1, 2)
    assert {reason.reason: reason.count for reason in made.reasons} == {"not_json": 2, "missing_field": 1}
    assert made.reasons[0].reason == "not_json" and made.reasons[0].first[0].startswith("partition 1, offset 0: ")
    assert (made.first_ms, made.last_ms) == (T * 1000, T * 1000) and "every row is a positive" in made.odd[0]


def test_a_definition_is_json(define):
    made = define(text=TOML + "start = 2026-11-27T12:00:00Z\n")
    assert Definition(**json.loads(json.dumps(made.__dict__))) == made


def test_a_mapping_is_guessed_of_a_topics_rows_nested_fields_by_their_paths(config, monkeypatch):
    rows = [{"user": {"id": f"u{n % 9}", "age": 20 + n % 9}, "item_id": n % 31, "timestamp": T + n, "rating": 1 + n % 5}
            for n in range(400)]
    changes = [json.dumps({"op": "c", "after": row}).encode() for row in rows] + [json.dumps({"op": "d"}).encode(), None]
    monkeypatch.setattr(ingest, "_some", lambda *_: iter([Record("t", 0, n, 0, None, value) for n, value in enumerate(changes)]))
    text = ingest.guessed(config, "t", "debezium-json")
    made = mappings.parse(mappings.tomllib.loads(text))
    assert (made.user_id, made.item_id, made.ts, made.user) == ("user.id", "item_id", "timestamp", ("user.age",))
    assert made.source.format == "debezium-json" and made.label.column == "rating"
    assert text.startswith("# proposed for t by its first 400 rows; headrace ingest --topic t --mapping THIS --check 1000 tries it")
    with pytest.raises(IngestError, match="no record of t is a row as avro: bad_magic"):
        ingest.guessed(config, "t", "avro")
