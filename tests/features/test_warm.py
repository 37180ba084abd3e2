"""The cache of compiled kernels: kept from start to start, and never for another layout."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from headrace.features import kernels, layout

SECOND = """
from headrace.features import kernels, warm
warm.compile_kernels()
print([sum(kernel.stats.cache_misses.values()) for kernel in (kernels.assemble, kernels.freeze_and_fold)])
"""


def layout_numbers():
    """What the kernels of a fresh import hold for the layout as it is now."""
    found = importlib.util.spec_from_file_location("kernels_again", kernels.__file__)
    again = importlib.util.module_from_spec(found)
    found.loader.exec_module(again)
    return [one.py_func.__defaults__[-1] for one in (again.assemble, again.freeze_and_fold)]


def test_a_second_start_compiles_nothing():
    for _ in range(2):
        answer = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True, check=True, timeout=300)
    assert answer.stdout == "[0, 0]\n"


@pytest.mark.parametrize(("name", "value"), [
    ("PRIOR_RATIO", layout.PRIOR_RATIO / 2), ("LOG_BUCKETS", layout.LOG_BUCKETS + 1), ("FOLDED", 7),
    ("LAST_CLICK_SEED", layout.LAST_CLICK_SEED + np.uint64(1)), ("EMPTY_KEYS", layout.EMPTY_KEYS + np.uint64(1)),
    ("USER_ROW", layout.ITEM_ROW)])
def test_every_constant_of_the_layout_is_in_the_key(monkeypatch, name, value):
    before = layout_numbers()
    assert before == [kernels._LAYOUT] * 2
    monkeypatch.setattr(layout, name, value)
    assert layout_numbers() != before


def test_only_kernels_with_the_key_are_cached():
    held = {name: one for name, one in vars(kernels).items() if isinstance(one, Dispatcher)}
    cached = {name for name, one in held.items() if one.stats.cache_path is not None}
    assert cached == {"assemble", "freeze_and_fold"} and len(held) > 10
