"""The table of reasons: nothing outside of it is ever said, and each of its codes is provoked here by what it is for."""

import ast
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyflink")

from headrace.dead_letters import resend
from headrace.engine.clock import Clock
from headrace.engine.events import Events
from headrace.features.layout import FEATURE_SET, F, K
from headrace.schemas.codec import Codec
from headrace.schemas.reasons import DOOR, FEATURES, INGEST, REASONS, SAMPLES, TRAIN, VECTORS
from headrace.schemas.targets import Noise
from headrace.streaming import targets
from headrace.streaming.samples import inserts
from tests.headrace.test_dead_letters import Broker
from tests.schemas.test_codec import Texts, message
from tests.streaming import test_ingest as ingests
from tests.streaming.test_stages import NOW, Letters, encoded, event, learner, run, sample_columns, stage  # noqa: F401

TOP = Path(__file__).parents[2]
ROOMS = ("schemas", "features", "models", "streaming", "engine", "jobs", "headrace")
NAN = struct.pack("<f", float("nan"))
EXPOSURE = {"feature_set": FEATURE_SET, "feature_keys": bytes(8 * F), "feature_values": bytes(4 * F), "numbers": bytes(4 * K),
            "features_sequence": 0, "model": None, "version": None, "score": None, "arms": []}


def record(fields):
    return json.dumps({"type": "record", "name": "Interaction", "namespace": "org.headrace", "fields": fields})


def cut(data, at, *, put=b"", drop=0):
    return data[:at] + put + data[at + drop :]


# reason -> bytes from a good message; the first field is event_id, a text of 2n as its first byte
MESSAGES = {
    "null_value": lambda good: None,
    "empty": lambda good: b"",
    "bad_magic": lambda good: b'{"user_id": "u"}',
    "short_header": lambda good: good[:5],
    "oversized": lambda good: good + bytes(5000),
    "unknown_schema": lambda good: good[:1] + struct.pack(">I", 77) + good[5:],
    "truncated": lambda good: good[:-3],
    "trailing_bytes": lambda good: good + b"\x00",
    "bad_utf8": lambda good: cut(good, 6, put=b"\xff", drop=1),
    "bad_varint": lambda good: cut(good, 5, put=bytes([good[5] | 128, 0]), drop=1),
    "out_of_range": lambda good: cut(good, 5, put=b"\xff" * 9 + b"\x03", drop=1),
    "bad_length": lambda good: cut(good, 5, put=b"\x01", drop=1),
    "bad_union_index": lambda good: cut(good, 6 + good[5] // 2, put=b"\x05", drop=1),
    "wrong_key": lambda good: good.replace(b"\x02u", b"\x02v"),
}
# reason -> changes to a good event
EVENTS = {
    "empty_id": {"item": ""}, "long_id": {"item": "i" * 300}, "control_character": {"item": "i\n"}, "bad_action": {"action": "a,b"},
    "bad_ts": {"ts_ms": NOW // 1000}, "bad_context": {"a=b": "c"},
    "bad_exposure": {"exposure": EXPOSURE | {"numbers": b"1"}}, "bad_score": {"exposure": EXPOSURE | {"score": 2.0}},
    "not_finite": {"exposure": EXPOSURE | {"numbers": NAN * K}}, "foreign_features": {"exposure": EXPOSURE | {"feature_set": "other@2"}},
    "feature_width": {"exposure": EXPOSURE | {"numbers": b""}},
}
# reason -> (type of a writer's only field, datum)
WRITERS = {
    "bad_enum_index": ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x02"), "bad_boolean": ("boolean", b"\x02"),
    "bad_block_count": ({"type": "array", "items": "long"}, b"\xfe\xff\xff\xff\x0f\x00"),
    "duplicate_key": ({"type": "map", "values": "null"}, b"\x04\x02a\x02a\x00"),
    "bad_schema": ({"type": "array", "items": "null"}, b"\x00"),
    "unresolvable": ("long", b"\x00"), "wrong_record": ("long", b"\x00"),
}
# reason -> JSON
DOORS = {
    "bad_type": [{"user_id": 1, "item_id": "i", "action": "click"}], "unknown_field": [{"user": "u"}], "missing_field": [{"user_id": "u"}],
    "bad_value": [{"user_id": "u", "item_id": "i", "action": "click", "value": 1e300}],
    "bad_position": [{"user_id": "u", "item_id": "i", "action": "click", "position": -1}],
    "undelivered": [{"user_id": "u", "item_id": "i", "action": "click"}],
}
HUGE = np.full(F, 3e38, np.float32).tobytes()
# reason -> what makes the samples of offsets 4, 5, 6 bad at 5
SAMPLE_COLUMNS = {
    "foreign_sample": lambda columns: columns[7].__setitem__(1, "other@2"), "bad_sample": lambda columns: columns[5].__setitem__(1, np.nan),
    "non_finite_gradient": lambda columns: (columns[6].__setitem__(1, 1e10), columns[9].__setitem__(1, HUGE)),
}
# reason -> bytes of a topic that is ingested; those that others say too are in test_unwrap.py and test_ingest_rows.py
THEIRS = {"not_json": b"{", "bad_envelope": b'{"op": "x"}'}
SQL = ("late", "no_exposure", "repeated_exposure")
ELSEWHERE = ("poison", "poison_sample", "poison_touch", "resent")


def only(stage):  # noqa: F811
    (topic, _, _, reason, detail, first), = stage.dead_letters.sent
    assert topic in ("interactions", "touched.fm") and detail and isinstance(first, bytes)
    return reason


def test_every_code_has_its_test():
    known = [*MESSAGES, *EVENTS, *WRITERS, *DOORS, *SAMPLE_COLUMNS, *THEIRS, *SQL, *ELSEWHERE]
    assert sorted(known) == sorted(REASONS) and len(REASONS) >= 25


@pytest.mark.parametrize("reason", MESSAGES)
def test_messages(stage, reason):  # noqa: F811
    good, = encoded(stage, event(event_id="e1"))
    run(stage, [MESSAGES[reason](good)])
    assert only(stage) == reason and FEATURES in REASONS[reason].seen


@pytest.mark.parametrize("reason", EVENTS)
def test_events(stage, reason):  # noqa: F811
    run(stage, encoded(stage, event(**EVENTS[reason])))
    assert only(stage) == reason and FEATURES in REASONS[reason].seen


@pytest.mark.parametrize("reason", WRITERS)
def test_writers(stage, reason):  # noqa: F811
    kind, datum = WRITERS[reason]
    text = record([{"name": "x", "type": kind}])
    text = text.replace("Interaction", "Other") if reason == "wrong_record" else text
    stage.prepare(Codec("interactions", Texts(text)), stage.enriched)
    run(stage, [message(datum)])
    assert only(stage) == reason and FEATURES in REASONS[reason].seen


@pytest.mark.parametrize("reason", DOORS)
def test_doors(tmp_path, reason):
    events = Events(Clock(tmp_path / "clock.json", lambda: NOW), lambda records: ["queue full"] * len(records))
    verdict, = events.take(DOORS[reason])
    assert (verdict["accepted"], verdict["reason"]) == (False, reason) and verdict["detail"] and DOOR in REASONS[reason].seen


@pytest.mark.parametrize("reason", SAMPLE_COLUMNS)
def test_samples(learner, reason):  # noqa: F811
    made, _ = learner
    made.dead_letters = Letters()
    columns = sample_columns([4, 5, 6], [1, 2, 3])
    SAMPLE_COLUMNS[reason](columns)
    with np.errstate(all="ignore"):
        made.eval(*columns)
    assert only(made) == reason and made.dead_letters.sent[0][2] == 5 and TRAIN in REASONS[reason].seen


@pytest.mark.parametrize("reason", THEIRS)
def test_ingested_topics(reason):
    made = ingests.stage(log := ingests.Log(), ingests.CHANGES)
    ingests.run(made, [THEIRS[reason]])
    (_, letter), = ingests.sent(log, "dead-letters")
    assert letter["reason"] == reason and letter["detail"] and REASONS[reason].seen == (INGEST,)


@pytest.mark.parametrize("reason", SQL)
def test_what_the_samples_job_says_itself(reason):
    """Its SQL says no other; tests/end_to_end/test_dead_letters.py and test_targets.py have it say them."""
    statements = " ".join([*inserts("click"), *targets.inserts(Noise(repeated_ms=1))])
    said = set(re.findall(r"'interactions', `partition`, `offset`, '(\w+)'", statements))
    assert said == set(SQL) == {code for code, entry in REASONS.items() if SAMPLES in entry.seen}


def test_poison_of_each_stage(stage, learner):  # noqa: F811
    """What leads to them is in test_quarantine.py and test_stages.py; here is that the table knows who says them."""
    assert [REASONS[code].seen for code in ("poison", "poison_sample", "poison_touch")] == [(FEATURES, INGEST), (TRAIN,), (VECTORS,)]

    def failing(*_):
        raise KeyError("no")

    stage.features.freeze_and_fold = failing
    for _ in range(3):
        with pytest.raises(KeyError):
            run(stage, encoded(stage, event()))
    run(stage, encoded(stage, event()))
    assert only(stage) == "poison"


def test_resent_is_what_resend_leaves_behind():
    broker = Broker()
    broker.refuse("interactions", 0, 3, "unknown_schema", b"bytes")
    resend(broker, ["unknown_schema"])
    assert [letter["reason"] for letter in broker.letters] == ["unknown_schema", "resent"]


def said_in(file):
    """Constants that a file gives as a reason: of Malformed, refuse and send, of dead letters' dicts, and within the walker's code."""
    text = file.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
            place = {"Malformed": 0, "_refuse": 0, "refuse": 1, "send": 3}.get(name)
            if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                yield node.args[place].value
        elif isinstance(node, ast.Dict):
            yield from (value.value for key, value in zip(node.keys, node.values, strict=True)
                        if isinstance(key, ast.Constant) and key.value == "reason" and isinstance(value, ast.Constant))
    yield from re.findall(r"refuse\('(\w+)'", text)


def test_nothing_outside_the_table_is_said():
    said = {code for room in ROOMS for file in (TOP / room).rglob("*.py") for code in said_in(file) if re.fullmatch(r"\w+", str(code))}
    assert said <= set(REASONS), said - set(REASONS)
    assert set(REASONS) - said <= set(SQL) | {"foreign_sample", "bad_sample"}, "a code that nothing says"


def test_every_entry_says_what_it_is_and_what_is_next():
    for code, entry in REASONS.items():
        assert re.fullmatch(r"[a-z0-9_]{4,24}", code) and len(entry.what) > 10 and entry.then and entry.seen, code
        assert not entry.resend or entry.seen[0] == FEATURES, f"{code}: what was folded already is dropped as a retry"
