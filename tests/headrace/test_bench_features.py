"""What the bench of features folds and what it asks of Redis, by hand."""

from __future__ import annotations

import socket
import threading

import numpy as np

from headrace.bench.features_events import PING, World, at, feature_set, requests_of, updates
from headrace.bench.redis_peer import PONG, ask_until_pong


def test_every_event_counts_in_all_12_definitions_of_3_entities():
    events, definitions = World(50, 30).some(200), feature_set().definitions
    assert len(definitions) == 12 and len({one.group for one in definitions}) == 3
    assert not (np.isnan(events["x"]) & np.isnan(events["y"])).any()
    assert feature_set().K >= 16
    clicked = events["action"] != 1
    assert clicked.any() and not clicked.all()
    assert (events["served"] == ~clicked).all()  # so that nothing is frozen
    assert not World(50, 30, frozen=True).some(200)["served"].any()


def test_events_that_are_given_again_are_new_ones():
    events = World(50, 30).some(20)
    first, one = at(events, slice(0, 10), 0)
    again, other = at(events, slice(0, 10), 10)
    assert not set(first.offset.tolist()) & set(again.offset.tolist())
    assert not set(one["event"].tolist()) & set(other["event"].tolist())
    assert (one["user"] == other["user"]).all() and one["ts_ms"].max() <= other["ts_ms"].min()
    assert one["event"].tolist() != at(events, slice(0, 10), 0, source=2)[1]["event"].tolist()


def commands(data: bytes) -> list[list[bytes]]:
    found, lines = [], data.split(b"\r\n")
    while lines and lines != [b""]:
        if lines[0] == PING.strip():
            found.append([lines.pop(0)])
            continue
        count = int(lines.pop(0)[1:])
        parts = []
        for _ in range(count):
            length, part = int(lines.pop(0)[1:]), lines.pop(0)
            assert len(part) == length
            parts.append(part)
        found.append(parts)
    return found


def test_redis_is_asked_for_an_update_a_definition():
    asked = commands(updates(3, 7, 2, 1.5, True, 4.25, 1_000))
    assert [one[0] for one in asked].count(b"LTRIM") == 1  # belongs to its LPUSH
    assert len(asked) == len(feature_set().definitions) + 1
    assert {one[1][:1] for one in asked} == {b"u", b"l", b"i", b"d", b"p"}


def test_each_request_ends_with_the_only_thing_that_is_answered_by_pong():
    world = World(20, 10)
    made = requests_of(world, *world.chosen(25), *world.outcome(25), 10)
    assert [len(commands(one)) for one in made] == [131, 131, 66]
    assert all(one.endswith(PING) and one.count(PING) == 1 for one in made)


def test_answers_are_counted_however_they_are_cut():
    mine, theirs = socket.socketpair()
    with mine, theirs:
        def answer() -> None:
            asked = answered = 0
            while answered < 6:
                asked += theirs.recv(1 << 16).count(PING)
                for byte in (asked - answered) * (b":1\r\n$3\r\n1.5\r\n" + PONG):
                    theirs.sendall(bytes([byte]))
                answered = asked

        thread = threading.Thread(target=answer)
        thread.start()
        ask_until_pong(mine, [PING] * 6)
        thread.join()
