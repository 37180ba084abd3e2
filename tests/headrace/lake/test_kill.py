"""kill -9 of a real writer, again and again, while records and their duplicates come: the lake is the first of each (cause, target)."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from headrace.lake import manifest
from headrace.lake.store import TEMPORARY, Folder
from tests.headrace.lake import worlds

KILLS, RECORDS = 8, 900


def started(topic, lake):
    child = subprocess.Popen([sys.executable, "-m", "tests.headrace.lake.writer_process", str(topic), str(lake)], text=True,
                             stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert child.stdout.readline().startswith("goes on")
    return child


def test_a_writer_killed_in_a_loop(tmp_path):
    rng, lake = random.Random(5), tmp_path / "lake"
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
    for _ in range(KILLS):
        child = started(topic.path, lake)
        for _ in range(rng.randrange(1, 6)):
            send(RECORDS // KILLS // 6)
            time.sleep(rng.uniform(0, 0.12))
        child.send_signal(signal.SIGKILL)
        lives.append(child.communicate()[0].count("commit"))
        assert child.returncode == -signal.SIGKILL
    send(RECORDS - sent)
    topic.load()
    made = worlds.drain(worlds.writer(lake, topic), topic)
    worlds.is_the_lake_of(lake, *topic.partitions)
    assert made.totals.rows + made.totals.duplicates == RECORDS and made.totals.duplicates > 20
    assert sum(lives) >= KILLS, f"commits by life: {lives}"
    named = {file.path for one in manifest.load(Folder(lake)) for file in one.files}
    left = {path.relative_to(lake).as_posix() for path in (lake / "samples").rglob("*") if path.is_file()}
    assert left == named and not list(lake.rglob(f"*{TEMPORARY}"))
