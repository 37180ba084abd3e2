"""Rows that nobody touches are deleted, and nobody can tell: not by what is frozen, not after a kill, not when the disk is full."""

import numpy as np
import pytest

from headrace.features import row_memory, shard
from headrace.features.feature_set import FeatureSet
from headrace.features.layout import USER_ROW
from headrace.rpc.errors import Unavailable
from tests.features.events import T0, columns, random_rows, shard_at
from tests.features.test_groups import SHOP, fold, interactions

IDLE_S = 600.0
DAY_MS = 86_400_000
ALL = 10_000


class Killed(Exception):
    pass


def row(n, user, ts_ms, **more):
    return {"cause": (7, 0, n), "ts_ms": ts_ms, "user": user, "item": user, "event": n + 1, **more}


def swept(one, count=ALL):
    """Look at every family once."""
    return sum(one.sweep(count) for _ in one.swept)


def held(one, family="users"):
    one.flush()
    return sorted(int.from_bytes(key, "big") for key, _ in one.store.scan(family))


def test_who_is_idle_goes_and_comes_again_as_new(tmp_path):
    one = shard_at(tmp_path, idle_s=IDLE_S)
    one.freeze_and_fold(*columns([row(n, user, T0) for n, user in enumerate([1, 2, 3, 1])]))
    one.flush()
    later = T0 + int(2000 * IDLE_S) + 1
    one.freeze_and_fold(*columns([row(4, 4, later), row(5, 2, later)]))
    assert held(one) == [1, 2, 3, 4] and one.user(1).impressions == 0 and not one.user(1).found
    assert swept(one) == 4 and held(one) == held(one, "items") == [2, 4]
    assert (one.counts["users"], one.counts["items"]) == (2, 2)
    assert (one.counts["expired users"], one.counts["expired items"]) == (2, 2)
    assert set(one.popular.top(9)[0].tolist()) <= {2, 4}
    assert swept(one) == 0, "it rests until time has gone on"
    answer = one.freeze_and_fold(*columns([row(6, 1, later)]))
    assert answer.numbers[0, 0] == 0 and one.user(1).impressions == 1 and one.counts["users"] == 3
    one.close()


def test_without_a_setting_nobody_goes(tmp_path):
    one = shard_at(tmp_path)
    one.freeze_and_fold(*columns([row(0, 1, T0), row(1, 2, T0 + 10_000 * DAY_MS)]))
    one.flush()
    assert one.swept == [] and one.sweep(ALL) == 0 and one.user(1).found
    one.close()


def test_a_row_that_is_not_written_yet_stays(tmp_path):
    """What the disk has of it is not what it is."""
    one = shard_at(tmp_path, idle_s=IDLE_S)
    one.freeze_and_fold(*columns([row(0, 1, T0)]))
    one.flush()
    later = T0 + int(3000 * IDLE_S)
    one.freeze_and_fold(*columns([row(1, 1, later), row(2, 9, later)]))
    assert swept(one) == 0 and one.user(1).impressions == 1
    one.close()


def test_what_went_is_not_redone(tmp_path):
    """The log still has its changes when the shard is killed; then a few of them come again."""
    rows = [row(n, 1 + n % 50, T0 + n) for n in range(400)]
    again = [row(1000 + n, 1 + n, T0 + DAY_MS) for n in range(5)]
    one = shard_at(tmp_path, idle_s=IDLE_S)
    one.freeze_and_fold(*columns(rows))
    one._memory._write(10_000)  # rows are in the store, and the last segment of the log is still there
    one.freeze_and_fold(*columns([row(900, 90, T0 + DAY_MS)]))
    assert swept(one) == 100 and sum(1 for _ in one.store.log.records()) >= 2
    one.freeze_and_fold(*columns(again))
    one.store.close()
    one = shard_at(tmp_path, idle_s=IDLE_S)
    assert held(one) == [1, 2, 3, 4, 5, 90] and one.counts["users"] == 6 and one.user(3).impressions == 1
    one.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nobody_can_tell_whether_it_was_swept(tmp_path, monkeypatch, seed):
    """Sweeps, restarts and deaths in the middle of a deletion against a shard that is never swept: the same answers and rows read."""
    monkeypatch.setattr(row_memory, "BLOCK", 16)
    monkeypatch.setattr(shard, "BLOCK", 16)
    small = {"log_bytes": 20_000, "rows_bytes": 1, "idle_s": IDLE_S}
    chance = np.random.default_rng(seed)
    rows = random_rows(3000, seed, users=400, items=300)
    gaps_ms = np.cumsum(chance.integers(0, 1_500_000, 30))  # busy minutes, and between them up to twice as long as a row may be idle
    for n, one in enumerate(rows):
        one["ts_ms"] += int(gaps_ms[n // 100])
    whole, killed, at, died = shard_at(tmp_path / "whole", idle_s=IDLE_S), shard_at(tmp_path / "killed", **small), 0, 0
    answers = whole.freeze_and_fold(*columns(rows))
    while at < len(rows):
        size = int(chance.integers(1, 120))
        got = killed.freeze_and_fold(*columns(rows[at : at + size]))
        np.testing.assert_array_equal(got.numbers, answers.numbers[at : at + size])
        np.testing.assert_array_equal(got.values, answers.values[at : at + size])
        at += size
        if chance.random() < 0.3:
            died += _struck(killed, chance)
            killed.store.close()
            killed = shard_at(tmp_path / "killed", **small)
        killed.sweep(int(chance.integers(1, 200)))
    users, items = np.arange(1, 400, dtype=np.uint64), np.arange(400, 1, -1).astype(np.uint64) % np.uint64(300) + np.uint64(1)
    asked = users, items, np.zeros((399, 4), np.uint64), np.full(399, whole.popular.latest_ms)
    np.testing.assert_array_equal(whole.assemble(*asked).numbers, killed.assemble(*asked).numbers)
    assert died and killed.counts["expired users"] > 50 and killed.counts["users"] == len(held(killed)) < len(held(whole))
    assert killed.counts["items"] == len(held(killed, "items"))
    whole.close()
    killed.close()


def _struck(one, chance):
    """Die in the middle of a sweep's commit, before or after the log has it."""
    append, after = one.store.log.append, chance.random() < 0.5

    def strike(*given):
        if after:
            append(*given)
        raise Killed

    one.store.log.append = strike
    try:
        for _ in range(20):
            one.sweep(100)
    except Unavailable as error:
        assert isinstance(error.__cause__, Killed)
        return 1
    return 0


def test_a_disk_that_takes_no_more(tmp_path):
    one = shard_at(tmp_path, idle_s=IDLE_S)
    one.freeze_and_fold(*columns([row(n, n + 1, T0) for n in range(20)]))
    one.flush()
    one.freeze_and_fold(*columns([row(20, 99, T0 + DAY_MS)]))
    write = one.store.write

    def full(batch):
        raise OSError(28, "No space left on device")

    one.store.write = full
    with pytest.raises(Unavailable, match="free the disk"):
        one.sweep(ALL)
    assert one.sweep(ALL) == 0, "not before a fold has opened the store again"
    one.store.write = write
    one.freeze_and_fold(*columns([row(21, 99, T0 + DAY_MS)]))
    assert swept(one) == 20 and held(one) == held(one, "items") == [99], "the log had one family's"
    assert (one.counts["users"], one.counts["items"]) == (1, 1)
    one.close()


def test_rows_of_entities_go_too_and_those_of_definitions_that_are_gone(tmp_path):
    one = shard_at(tmp_path, feature_set=SHOP, idle_s=IDLE_S)
    fold(one, interactions(300, 1, late=0.0))
    one.flush()
    groups = [name for name in one.swept if name.startswith("group ")]
    before = {name: len(held(one, name)) for name in groups}
    one.close()
    one = shard_at(tmp_path, feature_set=FeatureSet.of(()), idle_s=IDLE_S)
    one.freeze_and_fold(*columns([row(10_000, 5, T0 + DAY_MS)]))
    assert all(before.values()) and swept(one) == sum(before.values()) + 18
    assert not any(held(one, name) for name in groups)
    assert one.counts[f"expired {groups[0]}"] == before[groups[0]]
    one.close()


def test_a_user_that_began_anew_is_written_whole(tmp_path):
    """In one block: its ring has come round to where it was, with other items in it."""
    one, early = shard_at(tmp_path, idle_s=IDLE_S), T0
    one.freeze_and_fold(*columns([row(n, 1, early + n, item=100 + n) for n in range(3)]))
    late = T0 + DAY_MS
    one.freeze_and_fold(*columns([row(10 + n, 1, late + n, item=200 + n) for n in range(5)]))
    wanted = one.user(1)
    one.store.close()  # killed
    one = shard_at(tmp_path, idle_s=IDLE_S)
    again = one.user(1)
    assert again.recent.tolist() == wanted.recent.tolist()
    assert again.recent[:6].tolist() == [204, 203, 202, 201, 200, 0]
    one.flush()
    [(_, data)] = list(one.store.scan("users"))
    assert np.frombuffer(data, USER_ROW)["begun"][0] == 1
    one.close()
