"""Who gets a row and who loses it: admission, expiry and a table at its bytes, against a dict."""

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.ps.admission import ADMISSIONS, Bloom, Exact
from headrace.ps.index import Index, kernel_input
from headrace.ps.spec import TableSpec
from headrace.ps.table import Table

AFTER, TTL_S = 3, 50
SPEC = TableSpec("t", "int64", 2, "sum", admission="exact", admit_after=AFTER, ttl_s=TTL_S, admit_keys=100_000, bytes_max=8_000_000)


class AgainstDict(RuleBasedStateMachine):
    """A full table with admission and expiry is a dict of (sums, event time) and a dict of counts of who waits."""

    def __init__(self):
        super().__init__()
        self.table = Table(SPEC, 1 << 20, changes=True)
        self.held, self.waits, self.changed, self.gone, self.now = {}, {}, set(), set(), 1000

    @rule(start=st.integers(0, 30_000), count=st.sampled_from([1, 50, 3000, 4096]), times=st.integers(1, 4), later=st.integers(0, 40))
    def push(self, start, count, times, later):
        """The same keys some times over, as crowds are."""
        self.now += later
        for _ in range(times):
            keys = np.arange(start, start + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            if not self.table.room_for(keys):
                self.make_room(keys)
            self.table.push(keys, np.full((count, 2), 3, np.int64), self.now)
            for key in keys.tolist():
                if key not in self.held:
                    self.waits[key] = self.waits.get(key, 0) + 1
                    if self.waits[key] < AFTER:
                        continue
                    del self.waits[key]
                    self.held[key] = (0, 0)
                self.held[key] = (self.held[key][0] + 3, self.now)
                self.changed.add(key)

    def make_room(self, keys):
        needed = len(self.table) + len(keys) + 100 - self.table.rows_max
        going = self.table.oldest(needed, keys).tolist()
        assert len(set(going)) == len(going) >= needed and set(going) <= set(self.held) - set(keys.tolist())
        ages = np.sort([at for _, at in self.held.values()])
        if needed <= len(ages) // 16 - len(keys):
            assert max(self.held[key][1] for key in going) <= ages[len(ages) // 8], "the oldest go"
        self.take(going)

    def take(self, keys):
        assert self.table.remove(np.array(keys, np.uint64)) == len(keys)
        for key in keys:
            del self.held[key]
        self.gone |= set(keys)
        self.changed -= set(keys)

    @rule(rows=st.sampled_from([100, 5000, 100_000]))
    def expire(self, rows):
        old = {key for key, (_, at) in self.held.items() if at < self.now - TTL_S}
        going = self.table.expired(self.now - TTL_S, rows).tolist()
        assert len(set(going)) == len(going) and set(going) <= old and (rows < self.table.rows_max or set(going) == old)
        self.take(going)

    @rule(share=st.integers(0, 2))
    def publish(self, share):
        rows = self.table.changed()[: len(self.table.changed()) * share // 2].copy()
        self.changed -= set(self.table.keys_at(rows).tolist())
        self.table.clear_changed(rows)

    @precondition(lambda self: len(self.held) > 0)
    @rule()
    def restore(self):
        other = Table(SPEC, 1 << 20, changes=True)
        other.restore(self.table.stored())
        assert other.digest() == self.table.digest()
        self.table = other

    @invariant()
    def same(self):
        assert len(self.table) == len(self.held) <= self.table.rows_max and self.table.waiting == len(self.waits)
        keys = np.array([*list(self.held)[:300], *list(self.gone)[:300], *list(self.waits)[:300]], np.uint64)
        assert self.table.pull(keys).tolist() == [[self.held.get(key, (0, 0))[0]] * 2 for key in keys.tolist()]
        assert self.changed <= set(self.table.keys_at(self.table.changed()).tolist()) <= set(self.held)
        assert self.table.bytes <= SPEC.bytes_max


TestAgainstDict = AgainstDict.TestCase
TestAgainstDict.settings = settings(max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", [name for name, make in ADMISSIONS.items() if make is not None])
@pytest.mark.parametrize("after", [1, 2, 7, 255])
def test_every_admission_lets_a_key_in_at_its_time(name, after):
    """The suite finds every entry of the table. A filter may let one in early, never late."""
    admission = ADMISSIONS[name](after, 100_000)
    keys = kernel_input(np.random.default_rng(1).integers(0, 1 << 64, 2000, np.uint64))
    for turn in range(1, after + 1):
        admitted = admission.admit(keys)
        assert admitted.all() if turn == after else admitted.mean() < 0.05
        if turn == 1 and after > 1:
            other = ADMISSIONS[name](after, 100_000)
            other.restore(admission.state())
            admission = other


def test_a_filter_lets_few_in_early_at_the_keys_that_it_is_made_for():
    keys, bloom, exact = np.random.default_rng(2).integers(0, 1 << 64, 300_000, np.uint64), Bloom(2, 1 << 18), Exact(2, 1 << 19)
    early = sum(int(bloom.admit(kernel_input(keys[at : at + 4096])).sum()) for at in range(0, 1 << 18, 4096))
    assert early < 0.03 * (1 << 18)
    assert not any(exact.admit(kernel_input(keys[at : at + 4096])).any() for at in range(0, 1 << 18, 4096))
    assert bloom.bytes < exact.bytes / 2


def test_a_filter_forgets_by_halves():
    bloom = Bloom(200, 1)  # the least: 1,024 counters a slot
    keys = kernel_input(np.arange(64 * 20, dtype=np.uint64))
    for _ in range(300):
        assert not bloom.admit(keys).any()


def test_waiting_keys_are_bounded():
    exact = Exact(2, 4096)
    for start in range(0, 100_000, 4096):
        exact.admit(kernel_input(np.arange(start, start + 4096, dtype=np.uint64)))
        assert exact.waiting <= 4096


def test_a_state_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="rows_max"):
        Bloom(2, 1 << 20).restore(Bloom(2, 1).state())
    with pytest.raises(ValueError, match="at most"):
        exact = Exact(2, 1 << 20)
        exact.admit(kernel_input(np.arange(4096, dtype=np.uint64)))
        exact.admit(kernel_input(np.arange(9000, 9100, dtype=np.uint64)))
        Exact(2, 1).restore(exact.state())


def test_keys_that_go_leave_no_trace_whatever_the_index_does_meanwhile():
    """Growth and removal together: the index that is being left must not give back what went."""
    index, arena, rng, held = Index(), np.zeros(300_000, np.uint64), np.random.default_rng(3), {}
    following = 0
    for _ in range(250):
        keys = np.arange(following, following + 1500, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        following += 1500
        rows, born = index.find_or_insert(keys, arena)
        assert len(born) == 1500 and not set(rows.tolist()) & set(held.values()) and (arena[rows] == keys).all()
        held |= dict(zip(keys.tolist(), rows.tolist(), strict=True))
        going = rng.choice(np.array(list(held), np.uint64), min(len(held), int(rng.integers(0, 2200))), replace=False)
        gave = index.remove(going)
        assert sorted(gave.tolist()) == sorted(held.pop(key) for key in going.tolist())
        assert len(index.remove(going)) == 0
        assert (index.find(going) < 0).all()
        some = np.array(list(held)[:: max(1, len(held) // 500)], np.uint64)
        assert index.find(some).tolist() == [held[key] for key in some.tolist()]
        assert index.count == len(held)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adagrad", "ftrl", "adam"])
def test_a_row_that_is_used_again_starts_clean(optimizer):
    spec = TableSpec("t", "float32", 3, optimizer, init_scale=0.2)
    used, fresh = Table(spec, 100), Table(spec, 100)
    old, new = np.arange(9, dtype=np.uint64), np.arange(50, 59, dtype=np.uint64)
    used.push(old, np.full((9, 3), 2, np.float32))
    assert used.remove(old) == 9 and len(used) == 0
    for table in (used, fresh):
        table.push(new, np.full((9, 3), -0.5, np.float32))
    assert used.digest() == fresh.digest()


def test_gradients_are_clipped_and_weights_bounded_as_said():
    keys = np.arange(3, dtype=np.uint64)
    g = np.array([[3, -4], [0.1, 0.2], [-30, 0]], np.float32)

    def after(grads=g, **limits):
        table = Table(TableSpec("t", "float32", 2, "sgd", {"learning_rate": 1.0}, **limits), 10)
        table.push(keys, grads)
        return -table.pull(keys)

    assert np.allclose(after(), g) and np.allclose(after(clip_value=1.0), np.clip(g, -1, 1))
    assert np.allclose(after(clip_norm=5.0), [[3, -4], [0.1, 0.2], [-5, 0]])
    assert np.allclose(after(clip_value=3.0, clip_norm=3.0), [[3 / 2**0.5, -3 / 2**0.5], [0.1, 0.2], [-3, 0]])
    assert np.allclose(after(weight_bound=2.0), np.clip(g, -2, 2))


def test_squares_shrink_with_the_gradient_that_they_are_of():
    table = Table(TableSpec("t", "float32", 2, "adagrad", {}, clip_norm=5.0), 10)
    table.push(np.array([1], np.uint64), np.array([[6, 8, 36, 64]], np.float32))
    assert np.allclose(table.stored().rows[0, 2:], [9, 16])


@pytest.mark.parametrize("given", [
    {"bytes_max": 40 << 20}, {"bytes_max": 64 << 20, "ttl_s": 5}, {"bytes_max": 96 << 20, "admission": "bloom"},
    {"bytes_max": 48 << 20, "admission": "exact"}])
def test_the_bytes_that_it_says_are_those_that_it_takes(given):
    """Of the process's memory, within a twentieth, and never more than the bound."""
    filled({**given, "bytes_max": 16 << 20})  # what is compiled or loaded once is not the table's
    before = psutil.Process().memory_info().rss
    table = filled(given)
    took = psutil.Process().memory_info().rss - before
    print(f"{table.bytes >> 20} MiB said, {took >> 20} taken, {table.spec.bytes_max >> 20} allowed, load {table.load:.2f}")
    assert abs(took - table.bytes) < 0.05 * table.bytes + (1 << 20) and table.bytes <= table.spec.bytes_max


def filled(given):
    """A table that three times as many keys went through as it holds."""
    table = Table(TableSpec("t", "float32", 16, "adagrad", admit_after=1, **given), 1 << 24)
    grads, following = np.ones((4096, 16), np.float32), 0
    while following < 3 * table.rows_max:
        keys = np.arange(following, following + 4096, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        if not table.room_for(keys):
            table.remove(table.oldest(8192, keys))
        table.push(keys, grads, following // 10_000)
        following += 4096
        assert len(table) <= table.rows_max
        if following % (50 * 4096) == 0:
            table.clear_changed(table.changed().copy())
    return table
