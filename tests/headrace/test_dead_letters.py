"""Dead letters for people, on a broker that is a dictionary. (With a real one: tests/end_to_end/test_dead_letters.py.)"""

import subprocess
import sys

import pytest

from headrace.commands.dead_letters import BadAge, BadPlace, UnknownReason, _age_ms, _foreign, _known, _place
from headrace.dead_letters import HEADER, counts, place_of, resend
from headrace.kafka import Record
from headrace.ports import any_free


class Broker:
    """Letters in order, records by place; what is sent gets the next offset of partition 0."""

    def __init__(self):
        self.letters, self.records, self.sent = [], {}, []
        self.dies_before_telling = False

    def refuse(self, topic, partition, offset, reason, value=b"", ts_ms=1000, detail="why"):
        self.records.setdefault((topic, partition, offset), Record(topic, partition, offset, ts_ms, b"key", value))
        self.letters.append({"topic": topic, "partition": partition, "offset": offset, "reason": reason, "detail": detail,
                             "first_bytes": value[:256], "ts_ms": ts_ms})

    def read_letters(self, since_ms=None):
        return iter(list(self.letters))

    def originals(self, places):
        return {place: self.records[place] for place in places if place in self.records}

    def send(self, records):
        start = len(self.sent)
        self.sent += records
        return [(0, 1000 + n) for n in range(start, len(self.sent))]

    def tell(self, letters):
        if self.dies_before_telling:
            raise KeyboardInterrupt
        self.letters += letters

    def user_of(self, record):
        return b"user of " + record.key


@pytest.fixture
def broker():
    made = Broker()
    for offset in range(5):
        made.refuse("interactions", 1, offset, "unknown_schema", b"%d" % offset, ts_ms=1000 + offset)
    made.refuse("interactions", 1, 3, "unknown_schema", b"3", ts_ms=9000)  # a replay says it again
    made.refuse("interactions", 2, 7, "bad_ts", ts_ms=500)
    made.refuse("touched.fm", -1, -1, "poison_touch", detail="user 'a'")
    made.refuse("touched.fm", -1, -1, "poison_touch", detail="user 'b'")
    return made


def test_counts_are_of_records_and_not_of_letters(broker):
    found = {one.reason: one for one in counts(broker.letters)}
    assert {reason: one.records for reason, one in found.items()} == {"unknown_schema": 5, "bad_ts": 1, "poison_touch": 2}
    first = found["unknown_schema"]
    assert (first.first_ms, first.last_ms, first.example) == (1000, 9000, "interactions 1 3")


def test_only_what_can_get_better_is_sent_again_and_once(broker):
    done = resend(broker)
    assert (done.sent, done.before, dict(done.refused)) == (5, 0, {"bad_ts": 1, "poison_touch": 2})
    assert [(topic, key, value) for topic, key, value, _ in broker.sent] == [("interactions", b"user of key", b"%d" % n) for n in range(5)]
    assert [headers for *_, headers in broker.sent] == [{HEADER: b"interactions/1/%d" % n} for n in range(5)]
    marks = [letter for letter in broker.letters if letter["reason"] == "resent"]
    assert [place_of(mark) for mark in marks] == [("interactions", 1, n) for n in range(5)] and "offset 1004" in marks[4]["detail"]
    again = resend(broker)
    assert (again.sent, again.before, len(broker.sent)) == (0, 5, 5)


def test_what_is_refused_a_second_time_is_a_record_of_its_own(broker):
    resend(broker)
    broker.refuse("interactions", 0, 1002, "unknown_schema", b"2")
    assert resend(broker).sent == 1 and broker.sent[-1][3] == {HEADER: b"interactions/0/1002"}


def test_limit_reason_topic_and_dry_run(broker):
    assert resend(broker, dry_run=True).sent == 5 and not broker.sent and all(one["reason"] != "resent" for one in broker.letters)
    assert resend(broker, limit=2).sent == 2
    assert resend(broker, ["poison"]).sent == 0
    assert resend(broker, topic="enriched").sent == 0
    done = resend(broker, ["unknown_schema"], topic="interactions")
    assert (done.sent, done.before) == (3, 2) and [value for _, _, value, _ in broker.sent] == [b"%d" % n for n in range(5)]


def test_force_sends_the_hopeless_but_nothing_without_a_place(broker):
    done = resend(broker, force=True)
    assert (done.sent, done.nowhere, dict(done.refused)) == (6, 2, {})


def test_what_is_gone_is_counted_and_not_marked(broker):
    del broker.records["interactions", 1, 2]
    done = resend(broker)
    assert (done.sent, done.gone) == (4, 1)
    assert resend(broker).gone == 1


def test_a_death_between_sending_and_marking_sends_once_more(broker):
    broker.dies_before_telling = True
    with pytest.raises(KeyboardInterrupt):
        resend(broker)
    broker.dies_before_telling = False
    assert resend(broker).sent == 5 and resend(broker).sent == 0


def test_places_and_ages():
    assert _place(["3:17"]) == ("interactions", 3, 17) == _place(["interactions", "3", "17"]) == _place(["interactions 3 17"])
    assert (_age_ms("30s"), _age_ms("10m"), _age_ms("2h"), _age_ms("7d")) == (30_000, 600_000, 7_200_000, 604_800_000)
    for words in (["3"], ["interactions", "3"], ["a", "b", "c"], ["3:-1"]):
        with pytest.raises(BadPlace, match="PARTITION:OFFSET"):
            _place(words)
    with pytest.raises(BadAge, match="10m"):
        _age_ms("ten minutes")
    with pytest.raises(UnknownReason, match="nearest is 'unknown_schema'"):
        _known("unknown_shema")


@pytest.mark.parametrize("command", [["list"], ["show", "0:1"], ["resend"]])
def test_without_a_broker_it_is_a_sentence(tmp_path, command):
    (tmp_path / "headrace.toml").write_text(f'[kafka]\nbootstrap = "127.0.0.1:{any_free()}"\n')
    called = [sys.executable, "-m", "headrace", "dead-letters", *command]
    done = subprocess.run(called, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: no Kafka broker answers") and "Traceback" not in done.stderr


def test_nothing_is_sent_into_a_topic_that_others_write(broker):
    broker.refuse("shop.ratings", 0, 4, "poison")
    done = resend(broker, topic="shop.ratings")
    assert (done.sent, done.foreign, broker.sent) == (0, 1, [])
    assert resend(broker, topic="shop.ratings", force=True).foreign == 1


def test_a_record_of_others_is_shown_as_text_or_bytes():
    assert _foreign(b'{"a": 1}\n\x1b[0m') == ['  {"a": 1}', "  .[0m"]
    assert _foreign(b"\x00\x00\x00\x00\x07\x02u")[0].startswith("  0000  00 00 00 00 07 02 75")
    assert _foreign(None) == [] == _foreign(b"")
