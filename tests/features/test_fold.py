"""freeze_and_fold against its naive twin, and the rules about causes, retries and crashes."""

from __future__ import annotations

import math
import tempfile
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.features import block_log, store
from headrace.features.layout import ITEM_ROW, SLOTS, USER_ROW, F
from headrace.features.row_memory import BLOCK
from headrace.rpc.errors import TooOld, Unavailable
from tests import naive
from tests.features.events import HALF_LIFE_S, T0, columns, random_rows, shard_at

KEY = st.integers(1, (1 << 64) - 1)
ROWS = st.lists(st.fixed_dictionaries({
    "cause": st.tuples(st.just(7), st.integers(0, 1), st.integers(0, 60)),
    "ts_ms": st.integers(T0, T0 + 8 * 3_600_000), "action": st.integers(1, 9), "user": st.sampled_from([1, 2, (1 << 64) - 1]),
    "item": st.sampled_from([1, 2, 3, 1 << 63]), "event": st.integers(0, 40), "served": st.sampled_from([0, 0, 0, 1]),
    "user_fields": st.sampled_from([(0, 0, 0, 0), (5, 6, 0, 0), ((1 << 64) - 1, 0, 0, 1)]),
    "item_fields": st.sampled_from([(0,) * 6, (9, 0, 0, 0, 0, 8)]), "context": st.sampled_from([(0,) * 4, (3, 0, 0, 4)])}), max_size=120)


def check(answer, row, twin_answer) -> None:
    keys, values, numbers, sequence, status = twin_answer
    assert (answer.status[row], answer.sequence[row]) == (status, sequence)
    if keys is None:
        assert not answer.keys[row].any() and not answer.values[row].any() and not answer.numbers[row].any()
        return
    assert answer.keys[row].tolist() == keys
    np.testing.assert_allclose(answer.values[row], np.array(values, np.float32), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer.numbers[row], np.array(numbers, np.float32), rtol=1e-4, atol=1e-5)


def play(shard, twin, rows, size) -> None:
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        causes, events = columns(part)
        answer = shard.freeze_and_fold(causes, events)
        for i, row in enumerate(part):
            check(answer, i, twin.event(**row))


@given(rows=ROWS, size=st.integers(1, 50), idle_s=st.sampled_from([0.0, 0.0, 900.0, 7200.0]))
@settings(max_examples=40, deadline=None)
def test_folds_as_the_naive_twin_does(rows, size, idle_s):
    """Random events, repeated causes, times out of order, retries; in batches of any size, and the store opened again between."""
    with tempfile.TemporaryDirectory() as folder:
        twin, shard = naive.Features(HALF_LIFE_S, idle_s or math.inf), shard_at(folder, idle_s=idle_s)
        half = len(rows) // 2
        # a twin decides row by row; a batch with the same event under two causes has the same answer
        play(shard, twin, rows[:half], size)
        shard.store.close()
        shard = shard_at(folder, idle_s=idle_s)
        play(shard, twin, rows[half:] + rows[:20], size)
        assert shard.counts["sequence"] == twin.sequence
        assert shard.counts["retries"] == twin.retries
        assert (shard.counts["impressions"], shard.counts["clicks"]) == (twin.shown, twin.clicked)
        assert shard.counts["applied"] == len(twin.answers)
        assert (shard.counts["users"], shard.counts["items"]) == (len(twin.users), len(twin.items))
        for key, held in twin.users.items():
            held = twin.alive(held, twin.newest_ms) or {"log": [], "recent": [], "clicked": []}
            user = shard.user(key)
            assert user.impressions == sum(action == 1 for _, action, _ in held["log"])
            assert user.clicks == sum(2 <= action <= 6 for _, action, _ in held["log"])
            assert user.recent[user.recent != 0].tolist() == held["recent"][:-65:-1]
            assert user.recent_clicked[user.recent_clicked != 0].tolist() == held["clicked"][:-65:-1]
        shard.store.close()


def test_a_late_impression_and_its_click_step_as_far(tmp_path):
    """Late impressions of one user, hours behind the newest: found by the property above."""
    twin, shard = naive.Features(HALF_LIFE_S), shard_at(tmp_path)
    base = {"user": 2, "item": 1, "served": 0, "user_fields": (0,) * 4, "item_fields": (0,) * 6, "context": (0,) * 4}
    times = [(T0, 1), (T0 + 28_600_000, 1), (T0, 1), (T0, 2), (T0 + 1000, 1), (T0 + 28_600_000, 1)]
    rows = [{**base, "cause": (7, 0, n), "ts_ms": ts_ms, "action": action, "event": n + 1} for n, (ts_ms, action) in enumerate(times)]
    play(shard, twin, rows, 1)
    shard.store.close()


def test_more_events_than_a_ring_holds(tmp_path):
    twin, shard = naive.Features(HALF_LIFE_S), shard_at(tmp_path)
    rows = [{**row, "served": 0, "user_fields": (0,) * 4, "context": (0,) * 4} for row in random_rows(600, 3, users=3)]
    late = [{**rows[n], "cause": (8, 0, n)} for n in (0, 5, 300, 560, 590, 599)]  # the old ones have left the user's ring
    play(shard, twin, rows + late, 100)
    assert 0 < twin.retries < len(late)
    shard.store.close()


def test_a_clicked_impression_never_lowers_what_is_known_of_its_user(tmp_path):
    """However much was expected: users of any past, items of any rate."""
    shard, rng = shard_at(tmp_path), np.random.default_rng(5)
    shard.freeze_and_fold(*columns(random_rows(2000, 2)))
    loved = [{"cause": (6, 0, n), "user": int(rng.integers(1, 6)), "item": 40, "action": 1 + n % 2} for n in range(400)]
    shard.freeze_and_fold(*columns(loved))  # users and an item near a rate of 1
    slots, raised = [SLOTS.index("user_lift"), SLOTS.index("user_streak")], []
    for n in range(200):
        user, item, ts = int(rng.integers(1, 20)), int(rng.choice([40, 40, *range(1, 30)])), T0 + 3_000_000 + n
        causes, events = columns([{"cause": (9, 0, 2 * n + k), "user": user, "item": item, "ts_ms": ts, "action": 1 + k} for k in range(2)])
        read = [column[:1] for column in (events["user"], events["item"], events["context"], events["ts_ms"])]
        before = shard.assemble(*read).values[0, slots]
        shard.freeze_and_fold(causes, events)
        raised.append(shard.assemble(*read).values[0, slots] - before)
    assert (np.array(raised) >= 0).all() and (np.array(raised).mean(axis=0) > 0.01).all()
    shard.store.close()


def test_assemble_is_what_freezing_saw(tmp_path):
    shard = shard_at(tmp_path)
    shard.freeze_and_fold(*columns(random_rows(500, 1)))
    rows = [{"cause": (9, 0, n), "user": n + 1, "item": 2 * n + 1, "ts_ms": T0 + 900_000, "context": (4, 0, 5, 0)} for n in range(14)]
    for row in rows:
        causes, events = columns([row])
        before = shard.assemble(events["user"], events["item"], events["context"], events["ts_ms"])
        frozen = shard.freeze_and_fold(causes, events)
        for assembled, column in zip(before, frozen[:3], strict=True):
            np.testing.assert_array_equal(assembled, column)
    shard.store.close()


def test_a_side_that_is_none_is_empty(tmp_path):
    shard = shard_at(tmp_path)
    shard.freeze_and_fold(*columns(random_rows(50, 1)))
    none, one, context, ts = np.zeros(1, np.uint64), np.ones(1, np.uint64), np.zeros((1, 4), np.uint64), np.array([T0])
    from headrace.features.layout import EMPTY_KEYS, SIDE

    user_only = shard.assemble(one, none, context, ts)
    assert not user_only.values[0][SIDE == 2].any() and (user_only.keys[0][SIDE == 2] == EMPTY_KEYS[SIDE == 2]).all()
    assert user_only.values[0][SIDE == 1].any()
    item_only = shard.assemble(none, one, context, ts)
    assert not item_only.values[0][SIDE == 1].any() and item_only.values[0][SIDE == 2].any()
    assert shard.assemble(none[:0], none[:0], context[:0], ts[:0]).keys.shape == (0, F)
    shard.store.close()


def test_an_empty_call(tmp_path):
    shard = shard_at(tmp_path)
    assert shard.freeze_and_fold(*columns([])).keys.shape == (0, F)
    assert shard.sequence == 0
    shard.store.close()


def test_a_replay_is_answered_with_what_was_frozen_and_live_rows_would_differ(tmp_path):
    shard = shard_at(tmp_path)
    rows = random_rows(400, 5)
    causes, events = columns(rows)
    first = shard.freeze_and_fold(causes, events)
    shard.store.close()
    shard = shard_at(tmp_path)  # as after a crash behind Flink's checkpoint
    again = shard.freeze_and_fold(causes.take(np.arange(100, 400)), {name: column[100:400] for name, column in events.items()})
    assert (again.status == 1).all()
    for name in ("keys", "values", "numbers", "sequence"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name)[100:400])
    assert shard.counts["sequence"] == 400
    shown = events["action"] == 1  # the negative control: rows as they are now hold the samples' own clicks
    live = shard.assemble(*(events[name][shown] for name in ("user", "item", "context", "ts_ms")))
    assert (live.keys != first.keys[shown]).any() and (live.numbers != first.numbers[shown]).any()
    shard.store.close()


def test_a_cause_twice_in_a_call_and_a_retry_that_is_replayed(tmp_path):
    shard = shard_at(tmp_path)
    row = {"cause": (1, 0, 5), "event": 77}
    answer = shard.freeze_and_fold(*columns([row, row, {**row, "cause": (1, 0, 6)}, {**row, "cause": (1, 0, 6)}]))
    assert answer.status.tolist() == [0, 1, 2, 2]
    np.testing.assert_array_equal(answer.keys[0], answer.keys[1])
    replay = shard.freeze_and_fold(*columns([{**row, "cause": (1, 0, 6)}, row]))
    assert replay.status.tolist() == [2, 1]
    assert (shard.counts["sequence"], shard.counts["retries"], shard.counts["applied"]) == (1, 1, 2)
    assert shard.duplicates == 4
    shard.store.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40), st.integers(1, 3), st.integers(0, 9)), unique_by=lambda row: row[:2],
                max_size=25), st.integers(1, 25))
def test_late_events_and_offsets_out_of_order_are_counted(tmp_path_factory, events, cut):
    """As a reader counts them one by one, whatever is sent in one call, and through a new start."""
    folder, rows = tmp_path_factory.mktemp("late"), []
    newest, highest, late, out_of_order = {}, {}, 0, 0
    for partition, offset, user, second in events:
        late += second < newest.get(user, 0)
        out_of_order += offset < highest.get(partition, 0)
        newest[user], highest[partition] = max(second, newest.get(user, 0)), max(offset, highest.get(partition, 0))
        rows.append({"cause": (1, partition, offset), "user": user, "ts_ms": T0 + 1000 * second})
    for part in (rows[:cut], rows[cut:], rows):
        shard = shard_at(folder)
        shard.freeze_and_fold(*columns(part))
        counts = dict(shard.counts)
        shard.store.close()
    assert (counts["late"], counts["out_of_order"]) == (late, out_of_order)


def test_calls_longer_than_a_block(tmp_path):
    shard = shard_at(tmp_path)
    rows = [{"cause": (1, 0, n), "user": n % 97 + 1, "item": n % 13 + 1, "event": n + 1} for n in range(2 * BLOCK + 5)]
    answer = shard.freeze_and_fold(*columns(rows))
    assert answer.keys.shape == (len(rows), F) and answer.sequence.tolist() == list(range(len(rows)))
    assert (answer.status == 0).all()
    shard.store.close()


def test_too_old_stops_the_caller(tmp_path):
    shard = shard_at(tmp_path, ring_length=4096, frozen_offsets=4096)
    shard.freeze_and_fold(*columns([{"cause": (1, 0, n)} for n in (0, 20_000)]))
    with pytest.raises(TooOld, match="before the ring"):
        shard.freeze_and_fold(*columns([{"cause": (1, 0, 3)}, {"cause": (1, 0, 20_001)}]))
    assert shard.counts["applied"] == 2
    shard.store.close()


def test_a_ring_that_was_lengthened_stays_closed_where_it_was_cut(tmp_path):
    shard = shard_at(tmp_path, ring_length=4096)
    shard.freeze_and_fold(*columns([{"cause": (1, 0, n), "event": n + 1} for n in (0, 20_000)]))
    shard.store.close()
    shard = shard_at(tmp_path, ring_length=1 << 16)
    with pytest.raises(TooOld, match="before the ring"):
        shard.freeze_and_fold(*columns([{"cause": (1, 0, 0), "event": 99}]))
    assert shard.freeze_and_fold(*columns([{"cause": (1, 0, 20_001), "event": 100}])).status.tolist() == [0]
    shard.store.close()


def test_frozen_samples_and_ring_pages_are_pruned(tmp_path):
    shard = shard_at(tmp_path, ring_length=1 << 16, frozen_offsets=4096)
    for start in range(0, 1 << 17, 4096):
        shard.freeze_and_fold(*columns([{"cause": (1, 0, start + n * 512), "event": start + n * 512 + 1} for n in range(8)]))
    assert shard._answered.kept() <= 2 * 8
    assert len(list(shard.store.scan("rings"))) <= 16
    with pytest.raises(TooOld, match="frozen sample is gone"):
        shard.freeze_and_fold(*columns([{"cause": (1, 0, (1 << 17) - 16 * 4096)}]))
    newest = shard.freeze_and_fold(*columns([{"cause": (1, 0, (1 << 17) - 512)}]))
    assert newest.status.tolist() == [1]
    shard.store.close()
    shard = shard_at(tmp_path, ring_length=1 << 16, frozen_offsets=4096)
    assert shard.freeze_and_fold(*columns([{"cause": (1, 0, (1 << 17) - 512)}])).status.tolist() == [1]
    shard.store.close()


@pytest.mark.parametrize("logged", [False, True])
def test_a_write_that_fails_loses_nothing_and_the_next_call_ends_it(tmp_path, monkeypatch, logged):
    """When the log takes no block, it was not folded; when the log has it and the store does not take it, it was."""
    shard, whole = shard_at(tmp_path / "one"), shard_at(tmp_path / "whole")
    rows = random_rows(100, 2)
    whole.freeze_and_fold(*columns(rows))
    shard.freeze_and_fold(*columns(rows[:50]))

    def full(*_):
        raise OSError("no space left")

    def read(shard):
        users, items = np.meshgrid(np.arange(1, 20, dtype=np.uint64), np.arange(1, 30, dtype=np.uint64))
        n = users.size
        return shard.assemble(users.ravel(), items.ravel(), np.zeros((n, 4), np.uint64), np.full(n, T0)).numbers

    seen = read(whole if logged else shard)
    with monkeypatch.context() as patch:
        patch.setattr(*((store.FeatureStore, "write") if logged else (block_log.BlockLog, "append")), full)
        patch.setattr(store.FeatureStore, "try_write", full)
        with pytest.raises(Unavailable, match="no space"):
            shard.freeze_and_fold(*columns(rows[50:]))
        assert shard.failed
        assert shard.sequence == (100 if logged else 50)  # what is read goes on, as of that
        np.testing.assert_array_equal(read(shard), seen)
        with pytest.raises(Unavailable, match="no space"):  # still full: nothing is closed
            shard.freeze_and_fold(*columns(rows[50:]))
        np.testing.assert_array_equal(read(shard), seen)
    np.testing.assert_array_equal(read(shard), seen)
    answer = shard.freeze_and_fold(*columns(rows))
    assert answer.status.tolist() == [1] * 50 + [1 if logged else 0] * 50 and not shard.failed
    assert shard.counts == whole.counts
    np.testing.assert_array_equal(read(shard), read(whole))
    shard.store.close()
    whole.store.close()


def test_the_write_ahead_log_is_bounded_though_most_families_hardly_change(tmp_path, monkeypatch):
    """Each family's last flush holds a log: rings and meta, a few bytes a call, would hold all of them."""
    monkeypatch.setattr(store, "WAL_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(store, "WRITE_BUFFER_BYTES", 256 << 10)
    shard = shard_at(tmp_path, log_bytes=1 << 20)
    for start in range(0, 20_000, 1000):
        shard.freeze_and_fold(*columns(random_rows(1000, seed=start, users=500, first_offset=start)))
    held = settled = sum(file.stat().st_size for file in tmp_path.rglob("*.log"))
    deadline = time.monotonic() + 60
    while settled >= 4 << 20 and time.monotonic() < deadline:  # RocksDB flushes and deletes behind the writer
        time.sleep(0.05)
        settled = sum(file.stat().st_size for file in tmp_path.rglob("*.log"))
    shard.store.close()
    assert settled < 4 << 20, f"{held} bytes of write-ahead log after 20,000 events, {settled} a minute later"


def test_late_events_never_decay_upwards(tmp_path):
    shard = shard_at(tmp_path)
    hour = 3_600_000
    shard.freeze_and_fold(*columns([{"cause": (1, 0, 0), "ts_ms": T0 + hour}, {"cause": (1, 0, 1), "ts_ms": T0}]))
    ones, context = np.ones(3, np.uint64), np.zeros((3, 4), np.uint64)
    sample = shard.assemble(ones, ones, context, np.array([T0, T0 + hour, T0 + 2 * hour]))
    np.testing.assert_allclose(sample.numbers[:, 0], [1.5, 1.5, 0.75])  # half-life 1 h: 1 + 0.5 as of the newest
    assert (sample.numbers >= 0).all()
    shard.store.close()


def test_rows_of_another_version_are_refused(tmp_path):
    shard = shard_at(tmp_path)
    rows = np.zeros(1, USER_ROW)
    rows["version"] = 2
    batch = shard.store.batch()
    batch.put_rows("users", np.ones(1, np.uint64), rows)
    shard.store.write(batch)
    shard.close()
    with pytest.raises(AssertionError, match="version"):
        shard_at(tmp_path)
    assert (USER_ROW.itemsize, ITEM_ROW.itemsize) == (1648, 120)
