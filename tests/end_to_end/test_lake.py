"""The lake of a replay, its writer killed within it, against the topic as it is read from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from headrace import lake, ports
from headrace.lake import manifest
from headrace.lake.columns import PACKED
from headrace.lake.store import Folder
from tests.end_to_end.conftest import environment
from tests.end_to_end.outside import until
from tests.end_to_end.test_eager import renamed

MAPPING = Path(__file__).parents[2] / "examples" / "kuairand.toml"
ROWS = 1500


class Role:
    """The lake's role beside the session's stack, in a process of its own."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.port, self._log = ports.any_free(), (folder / "log").open("a")
        self._env = environment(HEADRACE_STACK__DATA_DIR=str(data), HEADRACE_LAKE__DIR=str(folder / "lake"),
                                HEADRACE_LAKE__HTTP_PORT=str(self.port))

    def start(self, commit_s: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "headrace", "serve", "lake"], stdout=self._log, stderr=self._log,
                                env=self._env | {"HEADRACE_LAKE__COMMIT_S": str(commit_s)})

    def figures(self) -> dict[str, float]:
        try:
            text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False).text
        except httpx.HTTPError:
            return {}
        return {one.name: one.value for family in text_string_to_metric_families(text) for one in family.samples if "lake" in one.name}

    def read(self) -> float:
        """Records that were read, committed or not."""
        told = self.figures()
        return sum(told.get(f"headrace_lake_{name}", 0) for name in ("rows_total", "duplicates_total", "unreadable_total", "pending_rows"))


def test_the_lake_of_a_replay_is_the_topics_samples_each_once(loop, on_stack, kuairand, tmp_path):
    role, folder = Role(loop.config.stack.data_dir, tmp_path), tmp_path / "lake"
    process = role.start(600)
    try:
        until(lambda: role.figures().get("headrace_lake_lag_offsets") == 0, lambda: f"what is there already: {role.figures()}")
        before, already = sum(loop.offsets("samples").values()), role.read()
        others = renamed(kuairand, tmp_path / "others.parquet", "lake-")
        done = on_stack("replay", str(others), "--mapping", str(MAPPING), "--clock", "now", "--speed", "max", "--limit", str(ROWS),
                        "--no-wait")
        assert done.returncode == 0, done.stderr
        until(lambda: role.read() > already, lambda: f"samples that are read, and wait for a commit: {role.figures()}, {already:.0f} of"
              f" {before} read before, now {loop.offsets('samples')}, jobs {on_stack('jobs', 'list').stdout}")
        process.kill()
        process.wait(10)
        committed = sum(one.records for one in manifest.load(Folder(folder)))
        assert committed == 0, "the kill came with the samples read and not committed"
        process = role.start(2)
        until(lambda: sum(loop.offsets("samples").values()) >= before + ROWS, "the samples", 120)
        until(lambda: role.figures().get("headrace_lake_lag_offsets") == 0, "the lake")
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
    records = {}
    for row in loop.read("samples", {}):
        key = tuple(row.record[name] for name in ("source", "partition", "offset", "target"))
        records.setdefault(key, {**row.record, "at_partition": row.partition, "at_offset": row.offset})
    table = lake.read(folder)
    held = {tuple(row[name] for name in ("source", "partition", "offset", "target")): row for row in table.to_pylist()}
    assert len(held) == len(table) == len(records) >= ROWS and held.keys() == records.keys()
    for key, record in records.items():
        for name, value in record.items():
            got = held[key][name]
            assert (np.array(got, PACKED[name].to_pandas_dtype()).tobytes() if name in PACKED else got) == value, (key, name)
    assert on_stack("samples", "stats", "--verify", "--lake", str(folder)).returncode == 0
