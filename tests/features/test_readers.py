"""Replicas in turn; one that is away is left alone and asked again; none is told."""

import pytest

from headrace.features import readers
from headrace.rpc.errors import Refused, Unavailable


class Place:
    def __init__(self, address, timeout_s):
        self.address, self.asked, self.fails = address, 0, None

    def call(self, verb, header, arrays):
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return {"by": self.address}, arrays

    def close(self):
        self.asked = -1


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr(readers, "Client", Place)
    clock = [100.0]
    made = readers.Readers(["a", "b", "c"], 30.0, lambda: clock[0])
    return made, clock


def by(made):
    found = made.call("user", {}, {})
    return found and found[0]["by"]


def test_they_take_turns_and_who_is_away_is_passed_by_for_a_while(three):
    made, clock = three
    assert [by(made) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    second = made._clients[1]
    second.fails = Unavailable("gone")
    assert [by(made) for _ in range(6)] == ["a", "c", "c", "a", "c", "c"] and second.asked == 3, "asked once, then left alone"
    second.fails = None
    clock[0] += readers.AWAY_S
    assert "b" in [by(made) for _ in range(3)]


def test_nobody_there_is_none_and_a_refusal_is_an_answer(three):
    made, _ = three
    for one in made._clients:
        one.fails = Unavailable("gone")
    assert by(made) is None and by(made) is None and sum(one.asked for one in made._clients) == 3
    assert readers.Readers([], 1.0).call("user", {}, {}) is None
    made._away_s = [0.0] * 3
    for one in made._clients:
        one.fails = Refused("another feature set")
    with pytest.raises(Refused):
        by(made)
    made.close()
    assert all(one.asked == -1 for one in made._clients)
