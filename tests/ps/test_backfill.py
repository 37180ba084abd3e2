from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest

from headrace.ps.backfill import Backfill, Tally
from headrace.ps.client import ParameterClient
from headrace.ps.service import shard_verbs
from headrace.rpc.errors import BadMessage, Refused, TooOld
from tests.ps import worlds
from tests.ps.test_client import SPREAD, computing

ROWS = np.random.default_rng(0).integers(0, 500, (20, 4))


class Direct:
    """Calls a shard's verbs without a network."""

    def __init__(self, verbs):
        self.verbs = verbs

    def call_until(self, _deadline_s, verb, header, arrays):
        return self.verbs[verb](header, arrays)

    def close(self):
        pass


@pytest.fixture
def two(tmp_path):
    """(client, stores) of two shards in this process."""
    with ExitStack() as stack:
        stores = [stack.enter_context(worlds.store(tmp_path / str(i), index=i, shards=2)) for i in range(2)]
        yield ParameterClient(callers=[Direct(shard_verbs(store)) for store in stores]), stores


def pushed_to(client, shard, offsets):
    """As a push that was broken off: on one shard only."""
    index = np.array(offsets)
    client.push("fm", "click", worlds.causes(range(20)), computing(ROWS), wanted=[index if i == shard else index[:0] for i in range(2)])


def test_each_shard_is_sent_what_it_lacks(two):
    client, stores = two
    pushed_to(client, 0, [1, 2, 3])
    pushed_to(client, 1, [3, 4])
    backfill, everything = Backfill(client, 2), worlds.causes(range(20))
    assert backfill.lacking("fm", "click", everything).tolist() == [i != 3 for i in range(20)]
    backfill.push("fm", "click", everything, computing(ROWS))
    assert backfill.tallies == [Tally(there=3, missing=17, applied=17), Tally(there=2, missing=18, applied=18)]
    assert not backfill.lacking("fm", "click", everything).any()
    backfill.push("fm", "click", everything, computing(ROWS))
    assert backfill.tallies == [Tally(there=23, missing=17, applied=17), Tally(there=22, missing=18, applied=18)]
    want = Counter(ROWS.ravel().tolist())
    assert client.pull("fm", "counts", SPREAD)[0].ravel().tolist() == [want[i] for i in range(500)]
    assert [store.shard.counts["recuts"] for store in stores] == [0, 0]


def test_what_is_too_old_to_know_is_told_and_left(two):
    client, stores = two
    client.push("fm", "click", worlds.causes([worlds.RING + 4096]), lambda index: {})
    backfill, asked = Backfill(client, 2), worlds.causes([5, worlds.RING])
    assert backfill.lacking("fm", "click", asked).tolist() == [False, True]
    backfill.push("fm", "click", asked, computing(ROWS))
    assert backfill.tallies == [Tally(missing=1, applied=1, too_old=1)] * 2
    assert [store.shard.rings.count("fm@1") for store in stores] == [2, 2]


def test_a_ring_that_moves_on_is_asked_again(two, monkeypatch):
    client, _ = two
    push, calls = client.push, []

    def moved(*args, **more):
        calls.append(args)
        if len(calls) == 1:
            raise TooOld("moved on")
        return push(*args, **more)

    monkeypatch.setattr(client, "push", moved)
    backfill = Backfill(client, 2)
    backfill.push("fm", "click", worlds.causes(range(20)), computing(ROWS))
    assert len(calls) == 2 and backfill.tallies == [Tally(applied=20)] * 2


def test_what_known_refuses(two):
    client, _ = two
    with pytest.raises(Refused, match="no model 'xx'"):
        client.known("xx", "click", worlds.causes([1]))
    with pytest.raises(BadMessage, match="negative"):
        client.known("fm", "click", worlds.causes([-1]))
