import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.ps import kernels
from headrace.ps.index import Index, kernel_input
from headrace.ps.spec import TableSpec
from headrace.ps.table import Table
from tests import naive

EDGES = [0, 1, 2**63, 2**64 - 1]
KEYS = st.lists(st.one_of(st.sampled_from(EDGES), st.integers(0, 40), st.integers(0, 2**64 - 1)), unique=True, max_size=30)


class AgainstDict(RuleBasedStateMachine):
    """An int64 table of two columns is a dict of sums; changed rows are a set."""

    def __init__(self):
        super().__init__()
        self.table = Table(TableSpec("t", "int64", 2, "sum"), 400_000, changes=True)
        self.sums, self.changed = {}, set()

    @rule(keys=KEYS, grad=st.integers(-5, 5))
    def push(self, keys, grad):
        self.table.push(np.array(keys, np.uint64), np.full((len(keys), 2), grad, np.int64))
        for key in keys:
            self.sums[key] = self.sums.get(key, 0) + grad
        self.changed |= set(keys)

    @rule(start=st.integers(0, 2**64 - 9001), count=st.sampled_from([5000, 9000]))
    def push_many(self, start, count):
        """So that the index grows within a run."""
        self.push([start + i for i in range(count)], 1)

    @rule(keys=KEYS)
    def pull(self, keys):
        got = self.table.pull(np.array(keys, np.uint64))
        assert got.tolist() == [[self.sums.get(key, 0)] * 2 for key in keys]

    @rule(share=st.integers(0, 3))
    def clear(self, share):
        rows = self.table.changed()[: len(self.table.changed()) * share // 3].copy()
        self.changed -= set(self.table.keys_at(rows).tolist())
        self.table.clear_changed(rows)

    @rule()
    def save_and_restore(self):
        other = Table(self.table.spec, 400_000, changes=True)
        other.restore(self.table.stored())
        assert other.digest() == self.table.digest()
        self.table = other

    @invariant()
    def same(self):
        assert len(self.table) == len(self.sums)
        assert self.table.load <= 0.8
        assert len(self.table.changed()) == len(self.changed)
        assert set(self.table.keys_at(self.table.changed()).tolist()) == self.changed


TestAgainstDict = AgainstDict.TestCase
TestAgainstDict.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))


def test_mix_and_slots():
    keys = np.array([*EDGES, 12345678901234567890], np.uint64)
    assert kernels.slots_of(kernel_input(keys)).tolist() == [naive.ps_mix(int(key)) >> 58 for key in keys]


def test_index_grows_without_losing_a_key_and_in_bounded_steps():
    index, arena = Index(), np.zeros(200_000, np.uint64)
    keys = np.random.default_rng(1).permutation(200_000).astype(np.uint64)
    grown = 0
    for start in range(0, len(keys), 1000):
        moved = index._moved
        _, born = index.find_or_insert(keys[start : start + 1000], arena)
        assert len(born) == 1000
        grown += index.growing
        assert index._moved - moved <= 4 * 4096
        at = keys[: start + 1000 : 97]
        assert (index.find(at) == np.arange(0, start + 1000, 97)).all()
    assert grown > 10
    assert (arena == keys).all()


def test_seeds_depend_on_key_and_column_alone():
    spec = TableSpec("t", "float32", 4, "adagrad", {}, 0.5)
    one, two = Table(spec, 20_000), Table(spec, 20_000)
    keys = np.arange(10_000, dtype=np.uint64)
    one.push(keys, np.zeros((len(keys), 4), np.float32))
    two.push(keys[::-1].copy(), np.zeros((len(keys), 4), np.float32))
    unknown = Table(spec, 20_000).pull(keys)
    assert (one.pull(keys) == two.pull(keys)).all()
    assert (one.pull(keys) == unknown).all()
    assert (unknown[:, 0] == 0).all()
    assert abs(unknown[:, 1:].std() - 0.5) < 0.01
    assert abs(unknown[:, 1:].mean()) < 0.01
    assert abs(np.corrcoef(unknown[:, 1:].T) - np.eye(3)).max() < 0.05
    assert abs(np.mean((unknown[:, 1:] / 0.5) ** 4) - 3) < 0.4, "as a normal's"
    next_to_it = Table(spec, 20_000).pull(keys[1:] * np.uint64(0x9E3779B97F4A7C15))
    assert abs(np.corrcoef(next_to_it[:-1, 1], next_to_it[1:, 2])[0, 1]) < 0.05, "nor do keys of a pattern share their columns"


def test_seeds_are_the_same_on_every_machine():
    """Whole numbers until the end: Python's own give the same to the bit."""
    low = 2**64 - 1

    def value(key, column):
        h = naive.ps_mix(naive.ps_mix(key) + column * 0x9E3779B97F4A7C15 & low)
        total = sum(h >> shift & 0xFFFF for shift in (0, 16, 32, 48))
        return np.float32(0.3 * ((total - 131070.0) * (3.0 / (65536.0**2 - 1.0)) ** 0.5))

    keys = [0, 1, 12345678901234567890, low]
    found = Table(TableSpec("t", "float32", 4, "sum", init_scale=0.3), 16).pull(np.array(keys, np.uint64))
    assert found[:, 1:].tolist() == [[value(key, column) for column in (1, 2, 3)] for key in keys]


def test_read_only_and_unaligned_arrays_are_taken():
    table = Table(TableSpec("t", "float32", 1, "sum"), 100)
    keys = np.frombuffer(b"x" + np.arange(3, dtype=np.uint64).tobytes(), np.uint64, 3, 1)
    assert not keys.flags.aligned
    table.push(keys, np.frombuffer(np.ones(3, np.float32).tobytes(), np.float32).reshape(3, 1))
    assert table.pull(keys).ravel().tolist() == [1, 1, 1]


def test_a_full_table_is_never_written_past():
    table = Table(TableSpec("t", "float32", 1, "sum"), 3)
    for change in (table.push, table.put):
        with pytest.raises(AssertionError, match="room_for"):
            change(np.arange(4, dtype=np.uint64), np.ones((4, 1), np.float32))


def test_room():
    table = Table(TableSpec("t", "float32", 1, "sum"), 3)
    table.push(np.arange(2, dtype=np.uint64), np.ones((2, 1), np.float32))
    assert table.room_for(np.arange(3, dtype=np.uint64))
    assert not table.room_for(np.arange(4, dtype=np.uint64))
