"""kill -9 of a real writer, again and again, while records and their duplicates come: the lake is the first of each (cause, target)."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.lake import manifest
from headrace.lake.place import Place
from headrace.lake.store import TEMPORARY, at
from tests.headrace.lake import worlds

KILLS, RECORDS = 8, 900


def started(topic, lake):
    child = subprocess.Popen([sys.executable, "-m", "tests.headrace.lake.writer_process", str(topic), str(lake)], text=True,
                             stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert child.stdout.readline().startswith("goes on")
    return child


@pytest.fixture(params=["folder", "s3"])
def lake(request, tmp_path):
    where = tmp_path / "lake" if request.param == "folder" else f"s3://{request.getfixturevalue('bucket')}/lake"
    return Place(str(where))


def test_a_writer_killed_in_a_loop(lake, tmp_path):
    rng, wait_s, kills = random.Random(5), *((0.5, KILLS // 2) if lake.remote else (0.12, KILLS))
    topic = worlds.FileTopic(tmp_path / "topic")
    sent = 0

    def send(count):
        nonlocal sent
        for _ in range(count):
            partition, back = rng.randrange(2), rng.choice([0, 0, 0, 1, 2, 30])
            offset = max(sent - back, 0)
            topic.append(partition=offset % 2, record=worlds.sample(
                offset, partition=offset % 4, target=rng.choice(["click", "like"]), note=f"{sent}.{partition}",
                ts_ms=worlds.BEGIN_MS + 40_000 * (offset % 3)))
            sent += 1

    lives = []
    for _ in range(kills):
        child = started(topic.path, lake.where)
        for _ in range(rng.randrange(1, 6)):
            send(RECORDS // KILLS // 6)
            time.sleep(rng.uniform(0, wait_s))
        child.send_signal(signal.SIGKILL)
        lives.append(child.communicate()[0].count("commit"))
        assert child.returncode == -signal.SIGKILL
    send(RECORDS - sent)
    topic.load()
    made = worlds.drain(worlds.writer(lake, topic), topic)
    worlds.is_the_lake_of(lake, *topic.partitions)
    assert made.totals.rows + made.totals.duplicates == RECORDS and made.totals.duplicates > 20
    assert sum(lives) >= kills, f"commits by life: {lives}"
    store = at(lake)
    assert set(store.names("samples")) == {file.path for one in manifest.load(store) for file in one.files}
    assert not any(name.endswith(TEMPORARY) for folder in ("samples", "manifests") for name in store.names(folder))
