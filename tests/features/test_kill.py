"""kill -9 at any moment: what is on disk is whole batches, rows and causes of the same ones."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import numpy as np

from headrace.features.layout import USER_ROW
from tests.features.events import columns, random_rows, shard_at

N = 20_000
CHILD = """
import sys
from tests.features.events import columns, random_rows, shard_at
shard = shard_at(sys.argv[1])
rows = random_rows({n}, 8)
print("ready", flush=True)
for at in range(0, len(rows), 20):
    shard.freeze_and_fold(*columns(rows[at : at + 20]))
    print(at + 20, flush=True)
"""


def test_killed_and_replayed_every_cause_counts_once(tmp_path):
    chance = random.Random(1)
    acknowledged = 0
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD.format(n=N), str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            acknowledged = max(acknowledged, int(child.stdout.readline()))
            time.sleep(chance.uniform(0.05, 0.25))
        finally:
            child.send_signal(signal.SIGKILL)
            rest = child.communicate()[0].split("\n")[:-1]
        acknowledged = max([acknowledged, *map(int, rest)])
    rows = random_rows(N, 8)
    killed, whole = shard_at(tmp_path / "killed"), shard_at(tmp_path / "whole")
    assert killed.counts["applied"] % 20 == 0 and acknowledged <= killed.counts["applied"] < N
    _agree(killed)
    again, once = killed.freeze_and_fold(*columns(rows)), whole.freeze_and_fold(*columns(rows))
    assert killed.counts == whole.counts
    assert (again.status == 1).sum() >= acknowledged
    for name in ("keys", "values", "numbers", "sequence"):
        np.testing.assert_array_equal(getattr(again, name), getattr(once, name))
    killed.flush()
    whole.flush()
    for family in ("users", "items", "rings"):
        assert list(killed.store.scan(family)) == list(whole.store.scan(family))
    _agree(killed)
    killed.store.close()
    whole.store.close()


def _agree(shard) -> None:
    """Events in the users' rows, causes in the rings and the counts say the same."""
    shard.flush()
    rows = np.frombuffer(b"".join(row for _, row in shard.store.scan("users")), USER_ROW)
    assert rows["events_total"].sum() == shard.counts["sequence"]
    assert shard._rings.count("base@1") == shard.counts["applied"]
    assert shard._answered.kept() == shard.counts["applied"]
