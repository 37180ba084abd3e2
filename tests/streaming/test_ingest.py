"""The ingest stage against a log in memory with transactions: each record once, whatever is killed when, and letters for the rest."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyflink")

from headrace.schemas.codec import Codec
from headrace.schemas.errors import RegistryUnavailable
from headrace.schemas.mapping import parse
from headrace.schemas.reasons import INGEST, REASONS
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming.featurize import Addresses
from headrace.streaming.ingest import COUNTS, Ingest, insert, tables
from headrace.streaming.tables import Connection
from headrace.streaming.transactions import NotWritten, OtherTopic, group_of
from tests.streaming.test_stages import Counter

T = 1_600_000_000
SOURCE = 0xABC
COLUMNS = {"user_id": "user", "item_id": "item", "ts": "t", "label": "rating >= 4"}
MAPPING, CHANGES = (parse({"columns": COLUMNS, "source": {"format": name}}) for name in ("json", "debezium-json"))
REGISTRY = SchemaStore()


class Killed(Exception):
    """Here the worker died."""


class Log:
    """What Kafka keeps: records seen by readers, and how far each partition was read; a transaction changes both or neither."""

    def __init__(self):
        self.records, self.next_of, self.die, self.first_of = [], {}, None, 1 << 40

    def next(self, partition):
        return self.next_of.get(partition, 0)

    def first(self, partition):
        return self.first_of

    def write(self, parts):
        for partition, part in parts.items():
            if self.die == "before":
                raise Killed
            self.records += part.records
            self.next_of[partition] = part.following
            if self.die == "after":
                raise Killed
        self.die = None

    def close(self):
        pass


def stage(log, mapping=MAPPING, event_bytes_max=4096):
    made = Ingest(Addresses("", "", ""), "t", "theirs", SOURCE, mapping, event_bytes_max)
    made.prepare(REGISTRY, log)
    made.counters = {name: Counter() for name in COUNTS}
    return made


def run(made, values, partition=0, first=0, offsets=None):
    offsets = list(offsets or range(first, first + len(values)))
    return made.eval(pd.Series(values, dtype=object), pd.Series([partition] * len(values), dtype="int32"),
                     pd.Series(offsets, dtype="int64")).tolist()


def row(n, **more):
    return json.dumps({"user": f"u{n % 3}", "item": f"i{n}", "t": T + n, "rating": 5 if n % 4 == 0 else 1, **more}).encode()


def sent(log, topic="interactions"):
    codec = Codec(topic, REGISTRY)
    return [(key, codec.decode(value)) for to, key, value in log.records if to == topic]


def test_a_record_becomes_an_impression_and_its_action_named_by_its_place():
    log = Log()
    assert run(stage(log), [row(0), row(1)], partition=2, first=10) == [2, 1]
    assert [(key, record["event_id"], record["action"]) for key, record in sent(log)] == [
        (b"u0", "00000abc-2-10-i", "impression"), (b"u0", "00000abc-2-10-a", "click"), (b"u1", "00000abc-2-11-i", "impression")]
    assert log.next_of == {2: 12}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 7), st.sampled_from(["", "", "before", "after"]), st.integers(0, 30)), max_size=12),
       st.sets(st.integers(0, 39)))
def test_each_record_once_whatever_dies_when_and_wherever_flink_begins_again(lives, bad):
    """Each life is a new worker: it reads on in batches of so many, dies around a transaction, and Flink goes back by so many records."""
    values = [b"{" if n in bad else row(n) for n in range(40)]
    log, at = Log(), 0
    for size, death, back in [*lives, (9, "", 0)]:
        made = stage(log)
        log.die = None
        try:
            while at < len(values):
                log.die = death if death and at > 5 else None
                run(made, values[at : at + size], first=at)
                at += size
        except Killed:
            at = max(0, at - back)
    assert log.next_of == {0: 40}
    whole = stage(alone := Log())
    run(whole, values)
    assert sent(log) == sent(alone), "none lost, none twice, in their order"
    assert [letter["offset"] for _, letter in sent(log, "dead-letters")] == sorted(bad)


def test_partitions_have_transactions_of_their_own():
    log = Log()
    made = stage(log)
    values, partitions, offsets = [row(n) for n in range(6)], [0, 1, 0, 1, 0, 1], [0, 100, 1, 101, 2, 102]
    log.next_of = {1: 102}
    counts = made.eval(pd.Series(values, dtype=object), pd.Series(partitions, dtype="int32"), pd.Series(offsets, dtype="int64")).tolist()
    assert counts == [2, 0, 1, 0, 2, 1] and log.next_of == {0: 3, 1: 103}
    assert made.counters["written_before"].count == 2 and made.counters["ingested"].count == 6


def test_what_is_refused_is_a_letter_of_the_other_topic_in_the_same_transaction():
    log = Log()
    assert run(stage(log), [row(0), b"{", None, row(3, t="soon"), row(4)], partition=1, first=5) == [2, 0, 0, 0, 2]
    letters = [letter for _, letter in sent(log, "dead-letters")]
    assert [(one["topic"], one["partition"], one["offset"], one["reason"]) for one in letters] == [
        ("theirs", 1, 6, "not_json"), ("theirs", 1, 7, "null_value"), ("theirs", 1, 8, "bad_ts")]
    assert letters[0]["first_bytes"] == b"{" and "'soon'" in letters[2]["detail"]


def test_what_is_left_aside_moves_the_offset_alone():
    log = Log()
    made = stage(log, CHANGES)
    values = [json.dumps({"op": "d", "before": {}}).encode(), None, json.dumps({"op": "c", "after": json.loads(row(0))}).encode(), None]
    assert run(made, values) == [0, 0, 2, 0]
    assert log.next_of == {0: 4} and len(log.records) == 2 and made.counters["aside"].count == 3


def test_an_interaction_that_no_one_would_take_is_refused_here():
    log = Log()
    run(stage(log, event_bytes_max=60), [row(0)])
    assert [letter["reason"] for _, letter in sent(log, "dead-letters")] == ["oversized"]


def test_a_record_that_fails_alone_is_poison(monkeypatch):
    log = Log()
    made = stage(log)
    read = made.reader.exposures

    def failing(values, partitions, offsets):
        if 3 in offsets:
            raise ZeroDivisionError("a defect")
        return read(values, partitions, offsets)

    monkeypatch.setattr(made.reader, "exposures", failing)
    assert run(made, [row(n) for n in range(6)]) == [2, 1, 1, 0, 2, 1]
    (_, letter), = sent(log, "dead-letters")
    assert (letter["offset"], letter["reason"]) == (3, "poison") and "a defect" in letter["detail"]
    assert [record["event_id"] for _, record in sent(log)] == [
        f"00000abc-0-{n}-{end}" for n in (0, 1, 2, 4, 5) for end in ("i", "a")[: 1 + (n % 4 == 0)]]


@pytest.mark.parametrize("error", [NotWritten("no"), RegistryUnavailable("no")])
def test_a_world_that_is_away_refuses_nothing(monkeypatch, error):
    log = Log()
    made = stage(log)

    def away(*_):
        raise error

    monkeypatch.setattr(*((log, "write") if isinstance(error, NotWritten) else (made.reader, "exposures")), away)
    with pytest.raises(type(error)):
        run(made, [row(0)])
    assert log.records == [] and log.next_of == {}


def test_a_topic_that_begins_again_under_a_running_job_is_seen():
    made = stage(Log())
    run(made, [row(0), row(1)], first=7)
    with pytest.raises(OtherTopic, match="made anew"):
        run(made, [row(2)], first=0)


def test_records_that_flink_passes_over_are_not_lost_silently_and_holes_are_none():
    """After a savepoint of elsewhere, or a checkpoint that lies."""
    log = Log()
    log.next_of, log.first_of = {0: 5}, 5
    with pytest.raises(OtherTopic, match="was to go on at offset 5, and Flink begins at 9: submit t without a savepoint"):
        run(stage(log), [row(0)], first=9)
    assert log.records == [] and log.next_of == {0: 5}
    log.first_of = 9  # what lay between was deleted, or is a transaction's marker
    run(stage(log), [row(0)], first=9)
    assert log.next_of == {0: 10}


def test_the_group_alone_says_where_it_stands():
    """Flink's own commits, of its checkpoints, would put the group back."""
    source, nowhere = tables(Connection("b:1", "http://r:1"), "theirs", group_of("n", SOURCE))
    assert "'properties.group.id' = 'headrace-ingest-n-00000abc'" in source and "'topic' = 'theirs'" in source
    assert "'properties.commit.offsets.on.checkpoint' = 'false'" in source and "'scan.startup.mode' = 'group-offsets'" in source
    assert "'properties.isolation.level' = 'read_committed'" in source and "blackhole" in nowhere


def test_the_stage_is_chained_and_evaluated_once(flink_env):
    from headrace.streaming.ingest import ingest
    from tests.streaming.test_plans import plan

    env = flink_env()
    env.create_temporary_function("ingest", ingest(Ingest(Addresses("", "", ""), "n", "theirs", SOURCE, MAPPING, 4096)))
    text = plan(env, tables(Connection("127.0.0.1:1", "http://127.0.0.1:1"), "theirs", "g"), [insert()])
    assert text.count("ingest(") == 1 and "Exchange" not in text


def test_the_table_knows_what_the_ingest_job_says():
    """Each is provoked here, in test_unwrap.py or in test_ingest_rows.py."""
    said = {"null_value", "empty", "not_json", "bad_envelope", "bad_type", "missing_field", "empty_id", "bad_ts", "long_id",
            "control_character", "bad_context", "oversized", "poison"}
    assert said < {code for code, entry in REASONS.items() if INGEST in entry.seen}
