"""The scan's kernels against the codec, its checks and EventBatch, which say the same of one record at a time."""

from __future__ import annotations

import io
import json
import math
import struct

import fastavro
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyflink")

from headrace.features.events import EventBatch, check_features
from headrace.features.frozen import Frozen
from headrace.features.layout import EVENT_COLUMNS, FEATURE_SET, IMPRESSION, F, K
from headrace.rpc.causes import Causes
from headrace.schemas import kernels
from headrace.schemas.codec import SCHEMAS, Codec, check_interaction
from headrace.schemas.errors import Malformed
from headrace.schemas.interaction import HEARTBEAT, TS_MS_MAX, TS_MS_MIN
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming.enrich import Enriched, Scores, write
from headrace.streaming.event_keys import EventKeys
from headrace.streaming.scanned import Reader, scan
from tests.schemas.test_codec import Texts

IDS = st.one_of(st.sampled_from(["u1", "用户-1", "x" * 300, "", "a\x07b", "é\x85", "🎬", "a,b"]), st.text(max_size=12))
NAMES = st.one_of(st.sampled_from(["user.age", "user.a", "item.genre", "item.z", "hour", "_private", "a=b", "", "user", "x" * 1100, "题"]),
                  st.text(max_size=5))
VALUES = st.one_of(st.sampled_from(["", "1", "Comedy||Drama|", "|", "电影|剧", "y" * 1100]), st.text(max_size=8))
SAMPLE = {"feature_set": FEATURE_SET, "feature_keys": bytes(8 * F), "feature_values": struct.pack(f"<{F}f", *range(F)),
          "numbers": bytes(4 * K)}
EXPOSURES = st.one_of(st.none(), st.fixed_dictionaries(
    {"features_sequence": st.integers(-5, 1 << 40), "model": st.one_of(st.none(), st.text(max_size=4)),
     "version": st.one_of(st.none(), st.integers(-(1 << 62), 1 << 62)), "score": st.sampled_from([None, 0.0, 0.25, 1.0, 1.5]),
     "arms": st.lists(st.text(max_size=6), max_size=3)}).flatmap(lambda rest: st.sampled_from([
         {}, SAMPLE, {**SAMPLE, "numbers": b""}, {**SAMPLE, "feature_set": "base@0"}, {**SAMPLE, "feature_set": ""},
         {**SAMPLE, "feature_values": struct.pack(f"<{F}f", *[math.nan] * F)}]).map(lambda features: {**rest, **features})))
RECORDS = st.fixed_dictionaries({
    "event_id": IDS, "request_id": st.one_of(st.none(), IDS), "scene": st.sampled_from(["", "feed", "f\n"]), "user_id": IDS, "item_id": IDS,
    "action": st.sampled_from(["impression", "click", "follow", "wink", HEARTBEAT, "", "a,b", "动" * 30]),
    "value": st.one_of(st.just(1.0), st.floats(allow_nan=True)), "position": st.one_of(st.none(), st.integers(-2, 5)),
    "ts_ms": st.sampled_from([1_700_000_000_000, TS_MS_MIN, TS_MS_MAX, TS_MS_MAX + 1, 5]),
    "context": st.dictionaries(NAMES, VALUES, max_size=6), "exposure": EXPOSURES})
PLAIN = {"event_id": "e1", "request_id": "r1", "scene": "feed", "user_id": "用户-1", "item_id": "i1", "action": "impression", "value": 2.5,
         "position": 3, "ts_ms": 1_700_000_000_000, "context": {"user.age": "31", "item.genre": "Comedy|Drama", "hour": "7"},
         "exposure": {**SAMPLE, "features_sequence": 9, "model": "fm", "version": 77, "score": 0.5, "arms": ["a=b", "c=d"]}}


@pytest.fixture(scope="module")
def registry():
    return SchemaStore()


def sensible(codec, message):
    """The record of a message when codec and checks take it, else None."""
    try:
        record = codec.decode(message)
        check_interaction(record)
        if record["exposure"] is not None:
            check_features(record["exposure"])
        return record
    except Malformed:
        return None


def read(codec, messages):
    reader = Reader(codec, 1 << 20)
    return reader.read(messages)


@given(data=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_xxh64_is_xxhash(data):
    assert int(kernels.xxh64(np.frombuffer(data, np.uint8), 0, len(data))) == xxhash.xxh64_intdigest(data)


@given(records=st.lists(RECORDS, min_size=1, max_size=6))
@settings(max_examples=400, deadline=None)
def test_what_is_taken_and_its_columns_are_the_codecs_and_event_batchs(registry, records):
    codec = Codec("interactions", registry)
    messages = [codec.encode(record) for record in records]
    truth = [sensible(codec, message) for message in messages]
    scanned, refused = read(codec, messages)
    assert {row for row, _ in refused} == {row for row, one in enumerate(truth) if one is None}
    plain = scan(messages, codec.alike(), 1 << 20)
    assert [bool(seen) for seen in plain.seen] == [one is not None for one in truth]  # the kernel doubts nothing that we write ourselves
    good = [one for one in truth if one is not None]
    rows = np.nonzero(scanned.seen == kernels.EVENT)[0]
    events = [one for one in good if one["action"] != HEARTBEAT]
    assert len(rows) == len(events)
    told = []
    made = EventKeys(told.extend).columns(scanned, rows, scanned.ts_ms[rows])
    batch = EventBatch(events)
    for name, (dtype, _) in EVENT_COLUMNS.items():
        assert made[name].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(made[name], batch.columns[name], name)
    assert sorted(told) == sorted(batch.names)


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_damage_is_taken_by_the_scan_only_where_the_codec_takes_it(registry, data):
    codec = Codec("interactions", registry)
    good = bytearray(codec.encode(data.draw(st.one_of(st.just(PLAIN), RECORDS))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(good)))
        soup = data.draw(st.binary(max_size=6))
        good[at : at + data.draw(st.integers(0, 6))] = soup
    messages = [bytes(good), codec.encode(PLAIN)]
    truth = [sensible(codec, message) for message in messages]
    scanned = scan(messages, codec.alike(), 1 << 20)
    assert scanned.seen[1] == kernels.EVENT  # whatever lies before it
    assert not scanned.seen[0] or truth[0] is not None
    scanned, refused = read(codec, messages)
    assert [row for row, _ in refused] == [row for row, one in enumerate(truth) if one is None]


def test_every_bit_flipped_and_every_cut(registry):
    codec = Codec("interactions", registry)
    good = codec.encode(PLAIN)
    damaged = [good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :] for at in range(len(good)) for bit in range(8)]
    damaged += [good[:at] for at in range(len(good))] + [good + b"\x00"]
    truth = [sensible(codec, message) for message in damaged]
    assert codec.alike()
    taken = scan(damaged, codec.alike(), 1 << 20).seen != kernels.DOUBT
    wrong = [at for at, (one, seen) in enumerate(zip(truth, taken.tolist(), strict=True)) if seen and one is None]
    assert not wrong and taken.sum() > len(good)


def test_another_writers_schema_and_odd_blocks_are_read_by_the_codec_and_scanned_with_the_rest(registry):
    ours = Codec("interactions", registry)
    good = ours.encode(PLAIN)
    texts = {**SCHEMAS["interactions"], "fields": list(reversed(SCHEMAS["interactions"]["fields"]))}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(texts))), PLAIN)
    reader = Codec("interactions", Texts(json.dumps(texts)))
    message = good[:5] + out.getvalue()
    scanned, refused = read(reader, [message, message, b"", None])
    assert [row for row, _ in refused] == [2, 3] and [error.reason for _, error in refused] == ["empty", "null_value"]
    assert scanned.seen.tolist() == [1, 1, 0, 0] and not reader.alike()
    keys = EventKeys(lambda names: None).columns(scanned, np.array([0, 1]), scanned.ts_ms[:2])
    assert keys["user"].tolist() == EventBatch([PLAIN]).columns["user"].tolist() * 2


def test_docs_and_defaults_of_a_writer_change_no_datum():
    other = json.loads(json.dumps(SCHEMAS["interactions"]))
    other.pop("doc")
    for field in other["fields"]:
        field.pop("doc", None)
    codec = Codec("interactions", Texts(json.dumps(other)))
    scanned, refused = read(codec, [Codec("interactions", SchemaStore()).encode(PLAIN)] * 3)
    assert not refused and codec.alike() and scanned.seen.tolist() == [1, 1, 1]


@given(records=st.lists(RECORDS, min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_what_the_codec_would_write(registry, records, seed):
    interactions, enriched, random = Codec("interactions", registry), Codec("enriched", registry), np.random.default_rng(seed)
    scanned, _ = read(interactions, [interactions.encode(record) for record in records])
    rows = np.nonzero(scanned.seen)[0]
    n = len(rows)
    source, partition = random.integers(0, 1 << 31, n).astype(np.int32), random.integers(0, 9, n).astype(np.int32)
    causes = Causes(source, partition, random.integers(0, 1 << 40, n))
    made = Enriched.empty(rows, causes, scanned.ts_ms[rows])
    events = np.nonzero(scanned.seen[rows] == kernels.EVENT)[0]
    columns = EventKeys(lambda names: None).columns(scanned, rows[events], made.ts_ms[events])
    m = len(events)
    answer = Frozen(random.integers(0, 1 << 63, (m, F)).astype(np.uint64), random.random((m, F)).astype(np.float32),
                    random.random((m, K)).astype(np.float32), random.integers(0, 1 << 40, m), np.zeros(m, np.uint8))
    kept = random.random(m) < 0.8
    frozen = (columns["action"] == IMPRESSION) & (columns["served"] == 0) & kept
    made.take(events, answer, frozen, kept)
    made.newest_ms[:] = random.integers(0, 1 << 41, n)
    scored = random.random() < 0.5
    probability = random.random(int(frozen.sum())).astype(np.float32)
    made.score(Scores(events[frozen], probability, "fm", 77) if scored else None)
    found = [enriched.decode(value) for value in write(scanned, made, enriched.header)]
    wanted = _naive([records[row] for row in rows.tolist()], causes, events, answer, kept, frozen, probability if scored else None,
                    made.newest_ms)
    assert repr(found) == repr(wanted)


def _naive(records, causes, events, answer, kept, frozen, probability, newest_ms):
    """Enriched records from decoded ones, one after the other."""
    made, of, scores = [], {int(row): n for n, row in enumerate(events)}, {}
    if probability is not None:
        scores = dict(zip(events[frozen].tolist(), probability.tolist(), strict=True))
    for row, record in enumerate(records):
        n = of.get(row)
        if n is not None and not kept[n]:
            continue
        one = {"source": int(causes.source[row]), "partition": int(causes.partition[row]), "offset": int(causes.offset[row])}
        one |= {name: record[name] for name in ("event_id", "request_id", "scene", "user_id", "item_id", "action", "value", "ts_ms")}
        one |= {"feature_set": "", "feature_keys": b"", "feature_values": b"", "numbers": b"",
                "features_sequence": 0 if n is None else int(answer.sequence[n]), "model": None, "version": None, "score": None, "arms": []}
        if record["exposure"]:
            one |= {name: value for name, value in record["exposure"].items()}
        if n is not None and frozen[n]:
            one |= {"feature_set": FEATURE_SET, "feature_keys": answer.keys[n].tobytes(), "feature_values": answer.values[n].tobytes(),
                    "numbers": answer.numbers[n].tobytes(), "features_sequence": int(answer.sequence[n])}
            if row in scores:
                one |= {"model": "fm", "version": 77, "score": scores[row]}
        one |= {"folded": -1 if n is None else int(answer.sequence[n]), "newest_ms": int(newest_ms[row])}
        made.append(one)
    return made


def test_names_are_told_until_they_were_taken_and_again_when_the_memory_is_full(monkeypatch):
    codec = Codec("interactions", SchemaStore())
    scanned, _ = read(codec, [codec.encode({**PLAIN, "item_id": f"i{n}"}) for n in range(8)])
    rows, told = np.arange(8), []

    def failing(names):
        raise OSError

    keys = EventKeys(failing)
    with pytest.raises(OSError):
        keys.columns(scanned, rows, scanned.ts_ms)
    keys._tell = told.extend
    keys.columns(scanned, rows, scanned.ts_ms)
    assert len(told) == 8 + 1 + 4
    keys.columns(scanned, rows, scanned.ts_ms)
    assert len(told) == 13
    keys._table = np.zeros(16, np.uint64)
    for _ in range(3):
        keys.columns(scanned, rows, scanned.ts_ms)
    assert len(told) > 13
