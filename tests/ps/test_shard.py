import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.ps.shard import APPLIED, DUPLICATE, RECUT
from headrace.rpc.causes import Causes, Rings
from headrace.rpc.errors import BadMessage, Refused, TooOld, Unavailable
from tests import naive
from tests.ps import worlds

PUSHES = st.lists(st.tuples(st.sampled_from(["click", "like"]), st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True),
                            st.booleans()), max_size=25)


def keys_by_cause(cause):
    return [cause[1] * 7 % 11 + i for i in range(3)]


def counts_of(causes):
    """The `counts` of a push: each key once for each cause that has it."""
    keys, counts = np.unique([key for cause in causes for key in keys_by_cause(cause)], return_counts=True)
    return {"counts": (keys.astype(np.uint64), counts.astype(np.int64)[:, None])}


@settings(max_examples=30, deadline=None)
@given(PUSHES)
def test_every_cause_once_whatever_is_repeated(tmp_path_factory, pushes):
    """Overlapping pushes, answered by status and cut again, across reopenings: sums equal a naive ledger's."""
    folder, ledger = tmp_path_factory.mktemp("shard"), naive.PsLedger()
    for effect, offsets, reopen in [*pushes, ("click", [0], True)]:
        with worlds.store(folder, rows_max=200) as store:
            causes = [(7, offset) for offset in offsets]
            while causes:
                want = ledger.push(effect, causes, {cause: keys_by_cause(cause) for cause in causes})
                done = store.shard.push("fm", effect, worlds.causes([c[1] for c in causes]), counts_of(causes))
                assert done.status == want
                if want != RECUT:
                    break
                causes = [cause for cause, has in zip(causes, done.applied, strict=True) if not has]
            if reopen:
                store.snapshot()
            keys = np.array(sorted(ledger.counts), np.uint64)
            assert store.shard.pull("fm", "counts", keys).ravel().tolist() == [ledger.counts[int(key)] for key in keys]
            assert store.shard.rings.count("fm@1") == len(ledger.applied)


def test_negative_control_without_the_ring_a_replay_counts_twice(tmp_path):
    """The check above would see it: the same push after a recovery that forgets the ring."""
    push = ("fm", "click", worlds.causes([1, 2]), counts_of([(7, 1), (7, 2)]))
    with worlds.store(tmp_path) as store:
        store.shard.push(*push)
        once = store.shard.tables["fm", "counts"].sum()
    with worlds.store(tmp_path) as store:
        assert store.shard.push(*push).status == DUPLICATE
        store.shard.rings = Rings(worlds.RING)
        assert store.shard.push(*push).status == APPLIED
        assert store.shard.tables["fm", "counts"].sum() == 2 * once


def test_recut_applies_nothing_and_says_which(tmp_path):
    rng = np.random.default_rng(1)
    with worlds.store(tmp_path) as store:
        shard = store.shard
        assert shard.push("fm", "click", worlds.causes([1, 5]), worlds.push_of(rng)) == (APPLIED, 1, None)
        before = shard.digest()
        done = shard.push("fm", "click", worlds.causes([0, 1, 2, 5]), worlds.push_of(rng))
        assert (done.status, done.sequence, done.applied.tolist()) == (RECUT, 1, [False, True, False, True])
        assert shard.digest() == before
        assert shard.push("fm", "like", worlds.causes([0, 1, 2, 5]), {}).status == APPLIED  # another effect; only causes
        assert shard.push("fm", "click", worlds.causes([1, 5], partition=1), {}).status == APPLIED


def test_what_is_refused_leaves_nothing_applied(tmp_path):
    rng, ok = np.random.default_rng(1), worlds.causes([9])
    keys, grads = worlds.keys_of([1, 2]), np.ones((2, 3), np.float32)
    nan = grads.copy()
    nan[1, 2] = np.nan
    below = np.array([[1, 1, 1, 1, -1, 1]] * 2, np.float32)
    with worlds.store(tmp_path, rows_max=30) as store:
        store.shard.push("fm", "click", worlds.causes([100_000]), worlds.push_of(rng))
        before, log_bytes = store.shard.digest(), store.shard.log.size_bytes
        wrong = [
            (Refused, "no model", ("xx", "click", ok, {})), (Refused, "no table", ("fm", "click", ok, {"w": (keys, grads)})),
            (Refused, "key 2 is not finite", ("fm", "click", ok, {"weights": (keys, nan)})),
            (Refused, "not finite", ("fm", "click", ok, {"weights": (keys, grads * np.inf)})),
            (Refused, r"expected float32\[2, 3\]", ("fm", "click", ok, {"weights": (keys, grads[:, :2])})),
            (Refused, r"or \[2, 6\] with the sums of squares", ("fm", "click", ok, {"weights": (keys, np.ones((2, 5), np.float32))})),
            (Refused, "squares of key 1 is negative", ("fm", "click", ok, {"weights": (keys, below)})),
            (Refused, r"expected int64\[2, 1\]$", ("fm", "click", ok, {"counts": (keys, np.ones((2, 2), np.int64))})),
            (Refused, "float64", ("fm", "click", ok, {"weights": (keys, grads.astype(np.float64))})),
            (Refused, "expected uint64", ("fm", "click", ok, {"weights": (keys.astype(np.int64), grads)})),
            (Refused, "key 2 comes twice", ("fm", "click", ok, {"weights": (worlds.keys_of([2, 2]), grads)})),
            (Refused, "full", ("fm", "click", ok, {"weights": (worlds.keys_of(range(31)), np.ones((31, 3), np.float32))})),
            (BadMessage, "offset 4.*comes twice", ("fm", "click", worlds.causes([3, 4, 4]), {})),
            (BadMessage, "without a cause", ("fm", "click", worlds.causes([]), {})), (BadMessage, "effect", ("fm", "", ok, {})),
            (BadMessage, "negative", ("fm", "click", worlds.causes([-1]), {})), (TooOld, "before the ring", ("fm", "click", ok, {})),
        ]
        for error, words, push in wrong:
            with pytest.raises(error, match=words):
                store.shard.push(*push)
            assert (store.shard.digest(), store.shard.log.size_bytes) == (before, log_bytes)
        both = {"counts": (keys, np.ones((2, 1), np.int64)), "weights": (keys, nan)}
        with pytest.raises(Refused):  # the good table before the bad one is not applied either
            store.shard.push("fm", "click", worlds.causes([100_001]), both)
        assert store.shard.digest() == before


def test_the_same_offset_of_two_partitions_is_no_repeat(tmp_path):
    causes = Causes(np.array([1, 1, 2], np.int32), np.array([0, 1, 0], np.int32), np.array([5, 5, 5]))
    with worlds.store(tmp_path) as store:
        assert store.shard.push("fm", "click", causes, {}).status == APPLIED
        assert store.shard.rings.count("fm@1") == 3


def test_a_failed_log_append_leaves_nothing_applied(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    with worlds.store(tmp_path) as store:
        before = store.shard.digest()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.writev", full)
        tables = worlds.push_of(rng)
        with pytest.raises(Unavailable, match="space"):
            store.shard.push("fm", "click", worlds.causes([1]), tables)
        assert store.shard.digest() == before
        monkeypatch.undo()
        assert store.shard.push("fm", "click", worlds.causes([1]), tables).status == APPLIED


def test_keys_of_another_shard_are_refused(tmp_path):
    with worlds.store(tmp_path, index=1, shards=3) as store:
        assert store.shard.slots == (22, 43)
        keys = np.arange(100, dtype=np.uint64)
        with pytest.raises(Refused, match="not of shard 1"):
            store.shard.pull("fm", "weights", keys)
        mine = keys[[22 <= naive.ps_mix(int(key)) >> 58 < 43 for key in keys]]
        assert store.shard.pull("fm", "weights", mine).shape == (len(mine), 3)
