"""The soak without a stack: the log it sends, its accounts beside a slow twin with dictionaries, its judgement beside one by definition."""

import json
import random
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest

from headrace.commands import verify
from headrace.commands.verify import VerificationFailed
from headrace.models.choice import Choice
from headrace.replay import heartbeat
from headrace.verify import flatness, soak
from headrace.verify.gauges import disk_mb, topics_mb
from headrace.verify.steady import BEGIN_MS, BLOCK_ROWS, Steady, block, rows_a_second
from headrace.verify.tally import KeyCounts, Places, Tally

SOURCE, DIGEST = 5, "00000001"


# The log


def sent(seed, rate, seconds, stalls=()):
    """(Steady, records by partition key order) of a run on a clock that moves with each sleep; `stalls`: sleeps that take three seconds."""
    steady, got, now, naps = Steady(seed, rate), [], [0.0], [0]

    def sleep(pause_s):
        now[0] += 3.0 if naps[0] in stalls else pause_s
        naps[0] += 1

    steady.run(lambda key, record: got.append((key, record)), seconds, 4, clock=lambda: now[0], sleep=sleep)
    return steady, got


def test_the_log_is_of_its_seed_and_comes_at_its_rate():
    steady, got = sent(1, 2000, 10)
    rows = [record for _, record in got if record["action"] == "impression"]
    assert steady.sent.rows == len(rows) == int(10 * rows_a_second(2000))
    assert steady.sent.interactions == pytest.approx(20_000, rel=0.02)
    assert [record["event_id"] for record in rows] == [f"{DIGEST}-{n}-i" for n in range(len(rows))]
    assert rows[-1]["ts_ms"] - BEGIN_MS == pytest.approx(10_000, abs=2)
    again, other = sent(1, 2000, 10)[1], sent(2, 2000, 1)[1]
    assert again == got and other[0] != got[0]


def test_a_stall_changes_nothing_but_when_rows_come():
    """Event times and labels are the log's; heartbeats never run ahead of the rows that were sent."""
    events = [record for _, record in sent(1, 1000, 12, stalls=(40, 41))[1] if record["action"] != "heartbeat"]
    assert events == [record for _, record in sent(1, 1000, 12)[1] if record["action"] != "heartbeat"]
    newest = 0
    for _, record in sent(1, 1000, 12, stalls=(40, 41))[1]:
        assert record["ts_ms"] >= newest
        newest = max(newest, record["ts_ms"])


def test_a_second_run_goes_on_where_the_first_ended():
    steady, got, now = Steady(1, 1000), [], [0.0]

    def send(key, record):
        got.append(record)

    def sleep(pause_s):
        now[0] += pause_s

    steady.run(send, 4, 4, share=0.25, clock=lambda: now[0], sleep=sleep)
    assert steady.sent.rows == int(0.25 * 4 * rows_a_second(1000))
    steady.run(send, 3, 4, clock=lambda: now[0], sleep=sleep)
    rows = [record["event_id"] for record in got if record["action"] == "impression"]
    assert len(rows) == steady.sent.rows == len(steady.made.labels) == int(rows_a_second(1000)) + int(3 * rows_a_second(1000))
    assert rows == [f"{DIGEST}-{n}-i" for n in range(len(rows))]


def test_what_was_made_is_what_was_sent():
    steady, got = sent(3, 1500, 8)
    rows = [record for _, record in got if record["action"] == "impression"]
    clicked = {record["event_id"][:-2] for _, record in got if record["action"] == "click"}
    assert len(rows) > BLOCK_ROWS, "a block must end within the run"
    assert steady.made.labels.tolist() == [record["event_id"][:-2] in clicked for record in rows]
    assert all(steady.positive(record["event_id"]) == (record["event_id"][:-2] in clicked) for record in rows)
    for of in ("user", "item"):
        assert steady.made.shown[of].total() == len(rows) and steady.made.clicked[of].total() == len(clicked)
        one = rows[7][f"{of}_id"]
        assert steady.made.shown[of][one] == sum(record[f"{of}_id"] == one for record in rows)
    assert len({record["user_id"] for record in rows}) <= 943


# The accounts


def invented(seed, rows=3000):
    """(labels, enriched as (value, record), samples, dead letters) of a stream that went wrong in every way."""
    rng = random.Random(seed)
    labels = np.random.default_rng(seed).random(rows) < 0.5
    enriched, samples, dead, offsets = [], [], [], [0, 0, 0]

    def put(row, kind):
        partition = rng.randrange(3)
        offsets[partition] += rng.choice((1, 1, 1, 5))
        record = {"source": SOURCE, "partition": partition, "offset": offsets[partition], "event_id": f"{DIGEST}-{row}-{kind}",
                  "action": "impression" if kind == "i" else "click"}
        if rng.random() < 0.02:
            dead.append({"topic": "interactions", "partition": partition, "offset": record["offset"], "reason": "late"})
            if rng.random() < 0.5:
                return None
        for _ in range(1 + (rng.random() < 0.1)):
            enriched.append((b"%d %d" % (row, rng.random() < 0.05), record))
        return record

    for row in range(rows):
        impression = put(row, "i")
        if labels[row]:
            put(row, "a")
        if impression is None or rng.random() < 0.02:
            continue
        keys = np.array([rng.randrange(200) for _ in range(4)], "<u8").tobytes()
        sample = {**impression, "label": float(labels[row] != (rng.random() < 0.03)), "feature_keys": keys}
        samples += [sample] * (1 + (rng.random() < 0.1))
    for kind in ("foreign", f"{DIGEST}-x-i", f"{DIGEST}-{rows}-i", f"{DIGEST}-1-a"):
        samples.append({**samples[0], "event_id": kind})
    enriched.append((b"", {**enriched[0][1], "source": SOURCE + 1}))
    enriched.append((b"", heartbeat(1)))
    dead.append({"topic": "touched.fm", "partition": -1, "offset": -1, "reason": "poison_touch"})
    rng.shuffle(samples)
    return labels, enriched, samples, dead


def naive(labels, enriched, samples, dead):
    """The accounts with dictionaries of records: the first of a cause counts."""
    first, unlike, copies, foreign = {}, 0, {"enriched": 0, "samples": 0}, 0
    names = {f"{DIGEST}-{row}-{kind}" for row in range(len(labels)) for kind in "ia"}
    for value, record in enriched:
        if record["action"] == "heartbeat":
            continue
        if record["source"] != SOURCE or record["event_id"] not in names:
            foreign += 1
            continue
        held = first.setdefault((record["partition"], record["offset"]), (value, record))
        copies["enriched"] += held[1] is not record or held[0] is not value
        unlike += held[0] != value
    made = {}
    for record in samples:
        if record["event_id"] not in names or not record["event_id"].endswith("-i"):
            foreign += 1
            continue
        copies["samples"] += (record["partition"], record["offset"]) in made
        made.setdefault((record["partition"], record["offset"]), record)
    impressions = {place for place, (_, record) in first.items() if record["action"] == "impression"}
    refused = {(one["partition"], one["offset"]) for one in dead if one["topic"] == "interactions"}
    row = {place: int(record["event_id"].split("-")[1]) for place, record in made.items()}
    found = [len(impressions), len(first) - len(impressions), len({record["event_id"] for _, record in first.values()}), unlike, len(made),
             len(impressions - set(made)), sum((made[place]["label"] >= 0.5) != labels[row[place]] for place in made),
             sum(record["label"] >= 0.5 for record in made.values()), len(refused - set(first)), foreign]
    keys = np.unique(np.frombuffer(b"".join(record["feature_keys"] for record in made.values()), "<u8"), return_counts=True)
    return found, copies, keys, len(refused)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("chunk", [1, 7, 8192])
def test_the_tally_counts_as_dictionaries_do(monkeypatch, seed, chunk):
    monkeypatch.setattr("headrace.verify.tally.CHUNK", chunk)
    monkeypatch.setattr("headrace.verify.tally.KEYS_MAX", 50 * chunk)
    labels, enriched, samples, dead = invented(seed, 3000 if chunk > 1 else 300)
    found, copies, (keys, times), refused = naive(labels, enriched, samples, dead)
    tally = Tally(SOURCE, DIGEST, labels)
    tally.enriched(enriched)
    tally.samples(samples)
    tally.dead(dead)
    assert [one for _, one, _ in tally.accounts()] == found
    assert dict(tally.copies) == copies and tally.reasons == {"late": refused}
    held, held_times = tally.keys.counted()
    assert held.tolist() == keys.tolist() and held_times.tolist() == times.tolist()


def test_keys_are_those_of_the_samples_that_are_learnt():
    labels = np.array([True, False, True])
    samples = [{"source": SOURCE, "partition": 0, "offset": n, "event_id": f"{DIGEST}-{n}-i", "label": float(label), "weight": 1.0,
                "numbers": np.full(8, n, "<f4").tobytes(), "feature_keys": np.full(2, n, "<u8").tobytes()}
               for n, label in enumerate(labels)]
    for choice, learnt in ((Choice(), [0, 1, 2]), (Choice(kept=1e-9), [0, 2]), (Choice(shown_min=1.0), [1, 2])):
        tally = Tally(SOURCE, DIGEST, labels, choice)
        tally.samples(samples)
        assert tally.keys.counted()[0].tolist() == learnt and len(tally.sampled) == 3, "all are samples"


def test_a_whole_stream_agrees_and_an_empty_one_is_empty():
    labels = np.array([True, False])
    records = [{"source": SOURCE, "partition": 0, "offset": n, "event_id": f"{DIGEST}-{row}-{kind}", "action": action}
               for n, (row, kind, action) in enumerate([(0, "i", "impression"), (0, "a", "click"), (1, "i", "impression")])]
    tally = Tally(SOURCE, DIGEST, labels)
    tally.enriched((b"", record) for record in records)
    tally.samples({**record, "label": label, "feature_keys": b"\0" * 8} for record, label in ((records[0], 1.0), (records[2], 0.0)))
    assert all(found == expected for _, found, expected in tally.accounts())
    empty = Tally(SOURCE, DIGEST, np.zeros(0, bool))
    empty.enriched([])
    empty.samples([])
    assert all(found == expected == 0 for _, found, expected in empty.accounts()) and len(empty.keys.counted()[0]) == 0


def test_places_and_keys_by_themselves():
    places = Places()
    assert places.meet(np.array([0, 0, 1]), np.array([9, 9, 0]))[0].tolist() == [True, False, True]
    assert places.meet(np.array([0, 1]), np.array([100_000, 0]))[0].tolist() == [True, False]
    assert len(places) == 3
    keys = KeyCounts()
    keys.add(np.array([3, 3, 2**64 - 1], np.uint64))
    assert keys.counted()[0].tolist() == [3, 2**64 - 1]
    keys.add(np.array([1, 3], np.uint64))
    assert [column.tolist() for column in keys.counted()] == [[1, 3, 2**64 - 1], [1, 3, 1]]


# The judgement


def looks(seconds=3600, every=10.0, **of):
    """Samples every 10 s; `of`: figures by time in hours, of memory, latency and disk."""
    def at(name, hours, default):
        return of[name](hours) if name in of else default

    return [{"at_s": t, "latency_p50_ms": at("p50", t / 3600, 200.0), "latency_p99_ms": at("p99", t / 3600, 500.0), "lag": 3,
             "memory_total_mb": at("memory", t / 3600, 4000.0), "memory_mb": {"ps-0": 200.0, "kafka": 600.0},
             "disk_mb": {"kafka": 1000 * t / 3600, "features": at("features", t / 3600, 300.0), "ps": at("ps", t / 3600, 200.0),
                         "flink checkpoints": 2.0}, "rows": {"weights": 5000, "metrics": 100 * int(t / 60)}}
            for t in np.arange(every, seconds + 1, every).tolist()]


def judged(samples, seconds=3600, full=True):
    return {one["what"]: one for one in flatness.judge(samples, seconds, full)}


def test_what_stands_still_is_flat():
    rng = random.Random(1)
    found = judged(looks(p50=lambda h: 200 + rng.gauss(0, 40), memory=lambda h: 4000 + rng.gauss(0, 30),
                         ps=lambda h: 100 + (h * 60 % 1) * 150, features=lambda h: 300 + (h * 7 % 1) * 200))
    assert all(one["flat"] is True and one["why"] == "" for one in found.values())
    assert set(found) == {"latency p50", "latency p99", "memory", "memory, growth", "disk of features, growth", "disk of ps, growth",
                          "disk of flink checkpoints, growth"}


@pytest.mark.parametrize("figure, course, named", [
    ("p50", lambda h: 200 if h < 0.6 else 260, ["latency p50"]),
    ("p99", lambda h: 500 if h < 0.6 else 650, ["latency p99"]),
    ("memory", lambda h: 4000 if h < 0.6 else 5000, ["memory", "memory, growth"]),
    ("memory", lambda h: 4000 + 1100 * h, ["memory, growth"]),
    ("memory", lambda h: 2000 + 1000 * h, ["memory", "memory, growth"]),
    ("features", lambda h: 100 + 400 * h, ["disk of features, growth"]),
    ("ps", lambda h: 200 + 90 * h, ["disk of ps, growth"]),
])
def test_what_grows_is_named(figure, course, named):
    found = judged(looks(**{figure: course}))
    assert [what for what, one in found.items() if one["flat"] is False] == named


@pytest.mark.parametrize("figure, course", [
    ("p50", lambda h: 200 - 100 * h), ("memory", lambda h: 6000 - 3000 * h), ("p50", lambda h: 2 if h < 0.6 else 40),
    ("features", lambda h: 300 + min(h, 0.3) * 5000), ("ps", lambda h: 0.5 + 10 * h), ("memory", lambda h: 4000 + 700 * h)])
def test_falling_and_what_is_too_small_to_matter_is_flat(figure, course):
    assert all(one["flat"] for one in judged(looks(**{figure: course})).values())


def naive_row(samples, figure, seconds=3600):
    """(second, last, growth an hour) by definition."""
    second, last = (median(one[figure] for one in samples if a <= one["at_s"] / seconds <= a + 0.25) for a in (0.25, 0.75))
    return second, last, (last - second) * 3600 / (seconds / 2)


def test_both_sides_are_medians_of_their_quarters():
    rng = random.Random(2)
    samples = looks(p99=lambda h: rng.uniform(100, 900), memory=lambda h: rng.uniform(1000, 2000))
    found = judged(samples)
    for what, figure in (("latency p99", "latency_p99_ms"), ("memory", "memory_total_mb"), ("memory, growth", "memory_total_mb")):
        second, last, growth_h = naive_row(samples, figure)
        row = found[what]
        assert (row["second"], row["last"], row["growth_h"]) == (second, last, pytest.approx(growth_h))
        limit = max(0.2 * last, 16) if what.endswith("growth") else max(1.2 * second, second + (50 if "p99" in what else 32))
        assert row["limit"] == pytest.approx(limit)
        assert row["flat"] == ((growth_h if what.endswith("growth") else last) <= limit)


def test_what_is_not_judged_says_why():
    assert all(one["flat"] is None and "shorter than" in one["why"] for one in judged(looks(120), 120).values())
    short = judged(looks(1200), 1200)
    assert all((one["flat"] is None) == what.endswith("growth") for what, one in short.items())
    filling = judged(looks(features=lambda h: 1000 * h), full=False)
    assert filling["disk of features, growth"]["flat"] is None and "still filling" in filling["disk of features, growth"]["why"]
    assert all(one["flat"] for what, one in filling.items() if what != "disk of features, growth")


def test_a_run_that_was_not_measured_is_not_flat():
    blind = looks()
    for one in blind:
        one["latency_p50_ms"] = one["latency_p50_ms"] if one["at_s"] < 2000 else None
    found = judged(blind)["latency p50"]
    assert found["flat"] is False and found["last"] is None and "not measured" in found["why"]
    assert all(one["flat"] is False for one in judged([]).values())
    assert [one["last"] for one in flatness.by_nature([], 3600)] == [None]


def test_what_grows_by_nature_is_told():
    found = {one["what"]: one for one in flatness.by_nature(looks(), 3600)}
    assert found["disk of kafka"]["growth_h"] == pytest.approx(1000)
    assert found["rows of metrics"]["growth_h"] == pytest.approx(6000, rel=0.1)
    assert found["memory of ps-0"]["growth_h"] == 0 and found["lag"]["last"] == 3


def result(**more):
    samples = looks(p50=lambda h: 200 + 300 * h)
    return {"by_nature": flatness.by_nature(samples, 3600), "flatness": flatness.judge(samples, 3600, False), "looks": samples,
            "looks_failed": ["70 s: ps-0 is away"], "checks": [{"check": "samples, by cause", "found": 1, "expected": 2, "agree": False}],
            "topic_bytes_an_interaction": {"enriched": 176.4, "labels": 0.2}, "interactions": 7_200_000, "sent_s": 3600.0, **more}


def test_the_command_shows_all_and_fails_with_the_names_of_what_is_off(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("headrace.verify.soak.run", lambda data, **settings: result())
    with pytest.raises(VerificationFailed, match="samples, by cause: 1, expected 2; latency p50: 462 ms in the last quarter, at most"):
        verify.soak(60, 2000, 1, tmp_path / "data", tmp_path / "result.json")
    shown = " ".join(capsys.readouterr().out.split())
    assert "NOT FLAT" in shown and "still filling" in shown and "DIFFER" in shown and "enriched 176" in shown and "labels" not in shown
    assert "a look failed at 70 s: ps-0 is away" in shown
    assert len(json.loads((tmp_path / "result.json").read_text())["looks"]) == 360
    still = result(checks=[], flatness=flatness.judge(looks(), 3600, True))
    monkeypatch.setattr("headrace.verify.soak.run", lambda data, **settings: still)
    verify.soak(60, 2000, 1, tmp_path / "data", None)
    assert verify._figure(None, "MB") == "-" and verify._figure(1234.5, "MB") == "1,234 MB"


# The disk


def test_parts_of_the_disk_add_up(tmp_path):
    for name in ("kafka/data/enriched-0/a", "kafka/data/enriched-1/b", "kafka/data/weights.fm-0/c", "flink/checkpoints/d", "flink/lib/e",
                 "features/f", "g"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 1_000_000)
    (tmp_path / "kafka/data/sparse-0").mkdir()
    with (tmp_path / "kafka/data/sparse-0/index").open("wb") as file:
        file.truncate(1 << 30)
    found = disk_mb(tmp_path)
    assert found == {"kafka": pytest.approx(3, rel=0.01), "features": pytest.approx(1, rel=0.01), "ps": 0, "logs": 0,
                     "flink checkpoints": pytest.approx(1, rel=0.01), "flink, the rest": pytest.approx(1, rel=0.01),
                     "other": pytest.approx(1, rel=0.01)}
    assert topics_mb(tmp_path) == {"enriched": pytest.approx(2, rel=0.01), "weights.fm": pytest.approx(1, rel=0.01), "sparse": 0}


def test_a_disk_too_small_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(soak.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5e9))
    with pytest.raises(soak.NoRoom, match=r"7,200,000 interactions take some .* GB free: fewer --minutes, a lower --rate"):
        soak.run(tmp_path / "new" / "data", seconds=3600, rate=2000, seed=1, say=print)
    assert not (tmp_path / "new").exists()
    soak._room(tmp_path / "new", 1000)


def test_blocks_follow_one_another():
    first, second = block(1, 0, 100), block(1, 1, 100)
    assert second.row[0] == first.row[-1] + 1 and second.ts_ms[0] > first.ts_ms[-1]
    assert first.digest == DIGEST and not np.array_equal(first.label, second.label)
