import numpy as np
import pytest

from headrace.ps.optimizers import OPTIMIZERS
from headrace.ps.spec import TableSpec
from headrace.ps.table import Table
from tests import naive

CASES = {
    "sgd": [{}, {"learning_rate": 0.5, "l2": 0.1}],
    "adagrad": [{}, {"learning_rate": 0.3, "initial_accumulator": 0.5, "epsilon": 0.01, "l2": 0.05}],
    "ftrl": [{}, {"alpha": 0.5, "beta": 0.3, "l1": 0.8, "l2": 0.2}, {"learning_rate": 0.2, "l1": 0.01}],
    "momentum": [{}, {"learning_rate": 0.3, "momentum": 0.0, "l2": 0.05}, {"momentum": 0.99}],
    "adam": [{}, {"learning_rate": 0.2, "beta1": 0.5, "beta2": 0.9, "epsilon": 0.01, "l2": 0.1}, {"beta1": 0.0, "beta2": 0.0}],
    "sum": [{}],
}


def step(name, p, w, slots, g, squares=None, steps=1):
    """(w, slots) of one coordinate by the oracle; slots is a list."""
    if name == "sgd":
        return naive.ps_sgd(w, g, p["learning_rate"], p["l2"]), []
    if name == "adagrad":
        w, n = naive.ps_adagrad(w, slots[0], g, p["learning_rate"], p["epsilon"], p["l2"], squares)
        return w, [n]
    if name == "ftrl":
        z, n = naive.ps_ftrl(*slots, g, p["alpha"], p["beta"], p["l1"], p["l2"], squares)
        return naive.ps_ftrl_weight(z, n, p["alpha"], p["beta"], p["l1"], p["l2"]), [z, n]
    if name == "momentum":
        w, v = naive.ps_momentum(w, slots[0], g, p["learning_rate"], p["momentum"], p["l2"])
        return w, [v]
    if name == "adam":
        w, m, v = naive.ps_adam(w, *slots, g, steps, p["learning_rate"], p["beta1"], p["beta2"], p["epsilon"], p["l2"])
        return w, [m, v]
    return w + g, []


def test_every_optimizer_has_cases():
    assert set(CASES) == set(OPTIMIZERS)


@pytest.mark.parametrize(("name", "params"), [(name, params) for name, cases in CASES.items() for params in cases])
@pytest.mark.parametrize(("rows", "dim", "init_scale"), [(1, 1, 0.0), (7, 3, 0.2), (0, 2, 0.0), (4100, 2, 0.1)])
@pytest.mark.parametrize("squared", [False, True])
def test_equals_the_oracle(name, params, rows, dim, init_scale, squared):
    if squared and not OPTIMIZERS[name].squares:
        pytest.skip(f"{name} keeps no sums of squares")
    rng = np.random.default_rng(5)
    table = Table(TableSpec("t", "float32", dim, name, params, init_scale), 8192)
    keys = np.arange(rows, dtype=np.uint64)
    optimizer = OPTIMIZERS[name]
    p = dict(zip(optimizer.defaults, optimizer.values(params).astype(float).tolist(), strict=True))
    w = table.pull(keys).astype(float)
    probe = np.zeros((rows, optimizer.width(dim)), np.float32)
    probe[:, :dim] = w
    optimizer.start(probe, np.arange(rows), dim, optimizer.values(params))
    slots = probe[:, dim : dim * (1 + optimizer.slots)].astype(float).reshape(rows, optimizer.slots, dim)
    steps = 0
    for _ in range(4):
        g = rng.normal(size=(rows, dim)).astype(np.float32)
        squares = (g * g * rng.uniform(0.1, 3, g.shape)).astype(np.float32)  # of a sum, and of its parts
        table.push(keys, np.concatenate([g, squares], axis=1) if squared else g)
        steps += 1
        for i in range(min(rows, 20)):
            for c in range(dim):
                w[i, c], slots[i, :, c] = step(name, p, w[i, c], slots[i, :, c].tolist(), float(g[i, c]),
                                                   float(squares[i, c]) if squared else None, steps)
    got = table.pull(keys)
    assert got.shape == (rows, dim)
    assert np.allclose(got[:20], w[:20], rtol=2e-4, atol=2e-6)
    stored = table.stored().rows[:20]
    wanted = slots[:20].reshape(min(rows, 20), dim * optimizer.slots)
    assert np.allclose(stored[:, dim : dim * (1 + optimizer.slots)], wanted, rtol=2e-4, atol=2e-6)
    assert (stored[:, dim * (1 + optimizer.slots) :] == steps).all()  # a row's own number is how often it was pushed


@pytest.mark.parametrize("name", [name for name, optimizer in OPTIMIZERS.items() if optimizer.squares])
def test_a_gradient_alone_is_one_sample(name):
    """So a push of one sample does the same with squares and without."""
    keys, g = np.arange(9, dtype=np.uint64), np.random.default_rng(3).normal(size=(9, 3)).astype(np.float32)
    tables = [Table(TableSpec("t", "float32", 3, name, {}, 0.2), 100) for _ in range(2)]
    tables[0].push(keys, g)
    tables[1].push(keys, np.concatenate([g, g * g], axis=1))
    assert tables[0].digest() == tables[1].digest()


def test_ftrl_zeroes_below_l1_and_a_seeded_row_stands_on_its_slots():
    table = Table(TableSpec("t", "float32", 2, "ftrl", {"alpha": 0.5, "beta": 1.0, "l1": 1.0, "l2": 0.1}, 0.3), 100)
    key = np.array([3], np.uint64)
    seeded = table.pull(key)
    table.push(key, np.array([[0.5, 0.0]], np.float32))
    assert table.pull(key)[0, 0] == 0  # |z| = 0.5 <= l1
    assert np.allclose(table.pull(key)[0, 1], seeded[0, 1], rtol=1e-5)  # a zero gradient moves nothing


def test_int64_sums_do_not_stop_at_float_precision():
    table = Table(TableSpec("t", "int64", 1, "sum"), 100)
    key = np.array([2**64 - 1], np.uint64)
    table.push(key, np.array([[2**60]], np.int64))
    table.push(key, np.array([[1]], np.int64))
    assert table.pull(key)[0, 0] == 2**60 + 1
    assert table.sum() == 2**60 + 1
