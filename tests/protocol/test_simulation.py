"""The protocol of causes, seed by seed: two models, duplicates, lost order, late positives, kills at every seam, backfills, short rings.

A failing seed is replayed with every move by `python -m tests.protocol SEED`.
"""

from collections import Counter

import pytest

from tests.protocol.plan import Plan
from tests.protocol.simulation import simulate
from tests.protocol.wrong import Wrong

SEEDS = range(300)
ON_ROCKSDB = range(1000, 1005)
LOOKED_AT = range(2000, 2030)
HAPPENED = ("job kills", "server kills", "torn tails", "torn snapshots", "late messages", "snapshots", "duplicates", "reads", "backfilled",
            "older shards", "orphans", "duplicate pushes", "recuts", "too old")


@pytest.mark.parametrize("seed", SEEDS)
def test_never_wrong(seed):
    simulate(seed)


@pytest.mark.parametrize("seed", ON_ROCKSDB)
def test_never_wrong_over_rocksdb(seed):
    simulate(seed, rocks=True)


def test_the_worst_does_happen():
    """What the seeds are for takes place in them, and a ring that is too short stops the job."""
    counts, stopped = Counter(), Counter()
    for seed in LOOKED_AT:
        one, short = simulate(seed), Plan.of(seed).short
        counts += one
        stopped[short] += bool(one["stopped"])
    assert all(counts[name] > 0 for name in HAPPENED), {name: counts[name] for name in HAPPENED}
    assert stopped["ps"] > 0 and stopped["features"] > 0 and not stopped[""]


def test_a_seed_is_one_world():
    told: list[list[str]] = [[], []]
    assert simulate(5, trace=told[0].append) == simulate(5, trace=told[1].append)
    assert told[0] == told[1] and len(told[0]) > 10


def test_wrong_is_an_assertion():
    with pytest.raises(AssertionError, match="never"):
        Wrong.unless(False, "never")
