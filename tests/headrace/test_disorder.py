"""Disorder: nothing is lost, each kind is what it says, and the same seed gives the same stream."""

import pytest

from headrace.disorder import Disorder, Shares

SLACK = 1000


def stream(n=4000, step_ms=50):
    return [(f"u{i % 7}".encode(), {"event_id": str(i), "ts_ms": 10_000 + i * step_ms}) for i in range(n)]


def passed(shares, events, seed=1):
    out = []
    disorder = Disorder(lambda key, record: out.append((key, dict(record))), shares, SLACK, seed)
    for event in events:
        disorder(*event)
    disorder.close()
    return out, disorder.done


def test_without_shares_nothing_changes():
    assert passed(Shares(), stream()) == (stream(), {"late": 0, "duplicates": 0, "out_of_order": 0})


def test_everything_comes_and_the_counts_are_what_was_done():
    out, done = passed(Shares.of(0.05, 0.05, 0.05), stream())
    first, newest, again, late, shuffled = set(), 0, 0, 0, 0
    for _, record in out:
        if record["event_id"] in first:
            again += 1
            continue
        first.add(record["event_id"])
        late += newest - record["ts_ms"] > SLACK
        shuffled += 0 < newest - record["ts_ms"] <= SLACK
        newest = max(newest, record["ts_ms"])
    assert len(first) == 4000 and len(out) == 4000 + again
    assert done == {"late": late, "duplicates": again, "out_of_order": shuffled}
    assert all(140 < count < 260 for count in done.values()), done


def test_a_late_event_waits_for_events_and_not_for_time_alone():
    out, done = passed(Shares.of(0.02, 0, 0), stream(step_ms=60_000))
    at = {record["event_id"]: place for place, (_, record) in enumerate(out)}
    moved = [place - int(event_id) for event_id, place in at.items() if place - int(event_id) > 100]
    assert done["late"] == len(moved) + sum(1 for e, p in at.items() if 0 < p - int(e) <= 100) > 40


def test_the_seed_is_the_stream():
    assert passed(Shares(0.1, 0.1, 0.1), stream()) == passed(Shares(0.1, 0.1, 0.1), stream())
    assert passed(Shares(0.1, 0.1, 0.1), stream()) != passed(Shares(0.1, 0.1, 0.1), stream(), seed=2)


def test_a_record_that_its_maker_changes_afterwards_is_held_as_it_was():
    out = []
    disorder = Disorder(lambda key, record: out.append(record["ts_ms"]), Shares(out_of_order=1.0), SLACK)
    record = {"event_id": "a", "ts_ms": 5}
    disorder(b"u", record)
    record["ts_ms"] = 6
    disorder.close()
    assert out == [5]


def test_more_than_all_events_is_an_error():
    with pytest.raises(ValueError, match=r"1\.2 of all events: at most 1"):
        Shares.of(0.5, 0.5, 0.2)
