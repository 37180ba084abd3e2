"""What a kill leaves is made whole: rows, causes and counts are those of a shard that was never killed."""

import resource

import numpy as np
import pytest

from headrace.features import redo as redo_module
from headrace.features import row_memory, shard
from headrace.features.layout import ROW_VERSION, USER_ROW
from headrace.rpc.errors import Unavailable
from tests.features.events import T0, columns, random_rows, shard_at
from tests.features.test_groups import SHOP, fold, interactions


class Killed(Exception):
    pass


@pytest.fixture
def small(monkeypatch):
    """Blocks of 16 events, and room for 64 rows: rows are evicted and written all the time."""
    monkeypatch.setattr(row_memory, "BLOCK", 16)
    monkeypatch.setattr(shard, "BLOCK", 16)
    return {"log_bytes": 20_000, "rows_bytes": 1}


def held(one):
    """All that a shard's store says."""
    one.flush()
    families = [name for name in one.store.families() if name in ("users", "items", "rings") or name.startswith("group ")]
    return {name: dict(one.store.scan(name)) for name in families}, one.counts, one._answered.kept()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_shard_killed_often_is_one_that_never_was(tmp_path, small, seed):
    """Rows of many more users than are in memory; each restart redoes what was not written."""
    rows, chance = random_rows(3000, seed, users=400, items=300), np.random.default_rng(seed)
    whole, killed, at, redone = shard_at(tmp_path / "whole"), shard_at(tmp_path / "killed", **small), 0, 0
    answers = whole.freeze_and_fold(*columns(rows))
    while at < len(rows):
        size = int(chance.integers(1, 120))
        got = killed.freeze_and_fold(*columns(rows[at : at + size]))
        np.testing.assert_array_equal(got.numbers, answers.numbers[at : at + size])
        at += size
        if chance.random() < 0.2:
            killed.store.close()  # nothing is flushed
            redone += len(list((tmp_path / "killed" / "blocks").iterdir()))
            killed = shard_at(tmp_path / "killed", **small)
    assert redone and killed._users.places == 64 and len({row["user"] for row in rows}) > 300
    assert held(killed) == held(whole)
    whole.close()
    killed.close()


def test_definitions_are_redone_as_their_rows_lay(tmp_path, small):
    records = interactions(600, 5)
    whole, killed = shard_at(tmp_path / "whole", feature_set=SHOP), shard_at(tmp_path / "killed", feature_set=SHOP, **small)
    fold(whole, records)
    for at in range(0, 600, 50):
        fold(killed, records[at : at + 50], at)
        killed.store.close()
        killed = shard_at(tmp_path / "killed", feature_set=SHOP, **small)
    assert held(killed) == held(whole)
    whole.close()
    killed.close()


@pytest.mark.parametrize("after", [False, True])
def test_killed_between_the_log_and_the_store(tmp_path, after):
    """Before its record is there a block was not folded; when it is, it was, whatever the store has of it."""
    rows = random_rows(200, 4)
    one = shard_at(tmp_path)
    one.freeze_and_fold(*columns(rows[:100]))
    append = one.store.log.append

    def struck(*given):
        if after:
            append(*given)
        raise Killed

    one.store.log.append = struck
    with pytest.raises(Killed):
        one._memory.commit(_writes_of(one, rows[100:]))
    one.store.close()
    one = shard_at(tmp_path)
    assert one.counts["applied"] == (200 if after else 100)
    answer = one.freeze_and_fold(*columns(rows))
    assert answer.status.tolist() == [1] * (200 if after else 100) + [0] * (0 if after else 100)
    assert one.counts["sequence"] == 200 and one._answered.kept() == 200
    one.close()


def _writes_of(one, rows):
    """What folding these rows is about to commit."""
    taken = []
    one._memory.commit = taken.append
    one.freeze_and_fold(*columns(rows))
    del one._memory.commit
    return taken[0]


def test_killed_while_it_redoes_it_redoes_again(tmp_path, monkeypatch):
    rows = random_rows(2500, 6, users=2000, items=30)
    whole, one = shard_at(tmp_path / "whole"), shard_at(tmp_path / "one")
    for each in (whole, one):
        each.freeze_and_fold(*columns(rows))
    one.store.close()
    monkeypatch.setattr(redo_module, "_ROWS", 100)
    for strike in (1, 3, 15):
        left = [strike]

        def write(self, batch, *, left=left, real=shard.FeatureStore.write):
            real(self, batch)
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(shard.FeatureStore, "write", write)
            store = shard.FeatureStore(tmp_path / "one")
            with pytest.raises(Killed):
                shard.FeatureShard(store, half_life_s=3600.0, ring_length=1 << 16)
            store.close()
    one = shard_at(tmp_path / "one")
    assert held(one) == held(whole)
    one.close()
    whole.close()


def test_what_a_version_before_kept_and_nobody_reads_is_dropped(tmp_path):
    one = shard_at(tmp_path)
    one.store.add_family("frozen")
    one.close()
    for _ in range(2):
        one = shard_at(tmp_path)
        assert "frozen" not in one.store.families()
        one.close()


def test_users_rows_of_the_version_before_are_read(tmp_path):
    """They had the causes of the last events behind the rest."""
    one = shard_at(tmp_path)
    one.freeze_and_fold(*columns([{"cause": (1, 0, 0), "event": 5}]))
    one.flush()
    [(key, row)] = list(one.store.scan("users"))
    assert len(row) == USER_ROW.itemsize and row[0] == ROW_VERSION == 4
    batch = one.store.batch()
    batch.put("users", key, bytes([3]) + row[1:] + bytes(1024))
    one.store.write(batch)
    one.close()
    one = shard_at(tmp_path)
    assert one.user(1).impressions == 1
    answer = one.freeze_and_fold(*columns([{"cause": (1, 0, 1), "event": 5}, {"cause": (1, 0, 2), "event": 6}]))
    assert answer.status.tolist() == [2, 0]
    one.store.close()
    one = shard_at(tmp_path)  # redone over the row as it was
    assert one.user(1).impressions == 2
    one.flush()
    assert [len(row) for _, row in one.store.scan("users")] == [USER_ROW.itemsize]
    one.close()


def test_a_disk_that_takes_no_more_is_survived(tmp_path):
    """The system refuses to write, as when a disk is full: reads go on; when it takes more, so do folds, and nothing is lost or twice."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    one, whole = shard_at(tmp_path / "one", log_bytes=1 << 20), shard_at(tmp_path / "whole")
    folded, refused = 0, 0
    ones = np.arange(1, 20, dtype=np.uint64)
    try:
        while refused < 3:
            rows = random_rows(1000, folded, users=2000, items=500, first_offset=1000 * folded)
            try:
                one.freeze_and_fold(*columns(rows))
                folded += 1
                if folded == 5:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, hard))
            except Unavailable as error:
                refused += 1
                assert "free the disk" in str(error) and one.failed
                seen = one.assemble(ones, ones, np.zeros((19, 4), np.uint64), np.full(19, T0)).numbers
                assert seen.any() and one.counts["applied"] in (1000 * folded, 1000 * folded + 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for n in range(folded + 2):
        part = columns(random_rows(1000, n, users=2000, items=500, first_offset=1000 * n))
        whole.freeze_and_fold(*part)
        if n >= folded:
            one.freeze_and_fold(*part)
    assert not one.failed and held(one)[:2] == held(whole)[:2]
    one.close()
    whole.close()
