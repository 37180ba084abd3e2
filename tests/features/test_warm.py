"""The cache of compiled kernels: kept from start to start, and never for another layout."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from headrace.features import kernels, layout
from tests.features.events import T0, shard_at
from tests.features.test_groups import SHOP, fold, interactions

SECOND = """
import numpy as np, pyarrow, tempfile
from numba.core.dispatcher import Dispatcher
from headrace.features import kernels, row_kernels, set_kernels, warm
from headrace.features.events import EventBatch
from headrace.features.follower import Replica
from headrace.features.service import FeatureService
from headrace.features.store import FeatureStore
from headrace.features.tail import Tail, records_of
from headrace.rpc.message import decode, encode
from tests.features.events import columns, random_rows, shard_at
from tests.features.test_groups import SHOP, causes_at, interactions

def asked(verbs, name, arrays):
    return verbs[name](*decode(pyarrow.py_buffer(encode({}, arrays))))[1]

held = [one for file in (kernels, row_kernels, set_kernels) for one in vars(file).values() if isinstance(one, Dispatcher)]
for feature_set in (warm.BASE, SHOP):
    warm.compile_kernels(feature_set, follows=True)
cached = [one for one in held if one.stats.cache_path]
before = [len(one.signatures) for one in held]
print(sum(sum(one.stats.cache_misses.values()) for one in cached), len(cached))
with tempfile.TemporaryDirectory() as folder:
    for n, (feature_set, taken) in enumerate(((warm.BASE, random_rows(5000, 1)), (SHOP, interactions(300, 1)))):
        shard = shard_at(folder + "/" + str(n), feature_set=feature_set, log_bytes=10000, rows_bytes=1, tail=Tail())
        verbs = FeatureService(shard).verbs()
        causes, events = (causes_at(0, 300), EventBatch(taken, SHOP).columns) if n else columns(taken)
        for at in (slice(0, 1), slice(1, 300), slice(290, 5000)):
            asked(verbs, "freeze_and_fold", {name: column[at] for name, column in {**causes._asdict(), **events}.items()})
        asked(verbs, "assemble", {"user": events["user"][:9], "item": events["item"][:9], "ts_ms": events["ts_ms"][:9],
                                  "context": events["context"][:9], "moment": np.zeros((9, len(feature_set.moments)), np.uint64)})
        with_it = Replica(FeatureStore(folder + "/replica" + str(n)), half_life_s=3600.0, ring_length=1 << 16, feature_set=feature_set)
        with_it.follow(list(records_of(shard.tail.since(1, 1 << 30))))
        assert with_it.counts == shard.counts
        with_it.close()
        shard.close()
print([one.py_func.__name__ for one, count in zip(held, before) if len(one.signatures) != count])
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
    misses, rest = answer.stdout.split(" ", 1)
    assert misses == "0" and int(rest.split("\n")[0]) > 12
    assert rest.split("\n")[1] == "[]", "compiled at a call, by which a service would stand still"


@pytest.mark.parametrize(("name", "value"), [
    ("PRIOR_RATIO", layout.PRIOR_RATIO / 2), ("LOG_BUCKETS", layout.LOG_BUCKETS + 1), ("FOLDED", 7),
    ("LAST_CLICK_SEED", layout.LAST_CLICK_SEED + np.uint64(1)), ("EMPTY_KEYS", layout.EMPTY_KEYS + np.uint64(1)),
    ("USER_ROW", layout.ITEM_ROW)])
def test_every_constant_of_the_layout_is_in_the_key(monkeypatch, name, value):
    before = layout_numbers()
    assert before == [kernels.KERNELS] * 2
    monkeypatch.setattr(layout, name, value)
    assert layout_numbers() != before


def test_kernels_of_every_file_go_by_the_fast_way(tmp_path, monkeypatch):
    """Numba takes the omitted arguments of a process for one another: had each file a number of its own, all but one would be slow."""
    slow = []
    taken = Dispatcher._compile_for_args
    shard = shard_at(tmp_path, feature_set=SHOP)
    one = np.ones(1, np.uint64)
    asked = one, one, np.zeros((1, 4), np.uint64), np.array([T0])
    fold(shard, interactions(50, 1))
    shard.assemble(*asked)
    monkeypatch.setattr(Dispatcher, "_compile_for_args", lambda self, *args, **kws: slow.append(self) or taken(self, *args, **kws))
    fold(shard, interactions(50, 2), 50)
    shard.assemble(*asked)
    shard.close()
    assert not slow


def test_only_kernels_with_the_key_are_cached():
    held = {name: one for name, one in vars(kernels).items() if isinstance(one, Dispatcher)}
    cached = {name for name, one in held.items() if one.stats.cache_path is not None}
    assert cached == {"assemble", "freeze_and_fold"} and len(held) > 10
