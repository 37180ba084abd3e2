"""The lake of a replay, in a folder and on an S3 server, its writers killed within it, against the topic as it is read from outside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace import lake, ports
from headrace.lake import manifest
from headrace.lake.columns import PACKED
from headrace.lake.place import Place
from headrace.lake.store import at
from tests.end_to_end.conftest import environment
from tests.end_to_end.outside import Outside, until
from tests.end_to_end.test_eager import renamed
from tests.s3_server import S3Server

MAPPING = Path(__file__).parents[2] / "examples" / "kuairand.toml"
ROWS = 1500


class Role:
    """The lake's role beside the session's stack, in a process of its own, which writes the lake at `where`."""

    def __init__(self, data: Path, where: str, log: Path, **more: str) -> None:
        self.where, self.port, self._log = where, ports.any_free(), log.open("a")
        self._env = environment(HEADRACE_STACK__DATA_DIR=str(data), HEADRACE_LAKE__DIR=where, HEADRACE_LAKE__HTTP_PORT=str(self.port),
                                **more)

    def start(self, commit_s: int) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen([sys.executable, "-m", "headrace", "serve", "lake"], stdout=self._log, stderr=self._log,
                                        env=self._env | {"HEADRACE_LAKE__COMMIT_S": str(commit_s)})
        return self.process

    def figures(self) -> dict[str, float]:
        text = self._asked("metrics")
        return {one.name: one.value for family in text_string_to_metric_families(text) for one in family.samples if "lake" in one.name}

    def read(self) -> float:
        """Records that were read, committed or not."""
        told = self.figures()
        return sum(told.get(f"headrace_lake_{name}", 0) for name in ("rows_total", "duplicates_total", "unreadable_total", "pending_rows"))

    def level(self) -> bool:
        """It has read all that the topic holds."""
        return self.figures().get("headrace_lake_lag_offsets") == 0

    def trouble(self) -> str:
        return self._asked("ready")

    def _asked(self, path: str) -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/{path}", trust_env=False).text
        except httpx.HTTPError:
            return ""


@pytest.fixture
def roles(loop: Outside, tmp_path: Path, s3: S3Server, bucket: str) -> Iterator[list[Role]]:
    """One that writes into a folder, and one that writes to a local S3 server."""
    data = loop.config.stack.data_dir
    made = [Role(data, str(tmp_path / "lake"), tmp_path / "folder.log"),
            Role(data, f"s3://{bucket}/samples/of-ours", tmp_path / "s3.log", **s3.environment)]
    yield made
    for one in made:
        one.process.kill()


def test_the_lake_of_a_replay_is_the_topics_samples_each_once(loop, on_stack, kuairand, tmp_path, roles, s3):
    """In a folder and on the S3 server: killed with samples read and not committed, and the server away when the next writer begins."""
    for role in roles:
        role.start(600)
    for role in roles:
        until(role.level, lambda role=role: f"what is there already: {role.where} {role.figures()}")
    before, already = sum(loop.offsets("samples").values()), [role.read() for role in roles]
    others = renamed(kuairand, tmp_path / "others.parquet", "lake-")
    done = on_stack("replay", str(others), "--mapping", str(MAPPING), "--clock", "now", "--speed", "max", "--limit", str(ROWS), "--no-wait")
    assert done.returncode == 0, done.stderr
    for role, held in zip(roles, already, strict=True):
        until(lambda role=role, held=held: role.read() > held, lambda role=role: "samples that are read, and wait for a commit:"
              f" {role.where} {role.figures()}, of {before} read before, now {loop.offsets('samples')}, {on_stack('jobs', 'list').stdout}")
        role.process.kill()
        role.process.wait(10)
        committed = sum(one.records for one in manifest.load(at(Place(role.where))))
        assert committed == 0, "the kill came with the samples read and not committed"
    with s3.away():
        for role in roles:
            role.start(2)
        until(lambda: f"{s3.url}" in roles[1].trouble(), lambda: f"the trouble: {roles[1].trouble()}")
    until(lambda: sum(loop.offsets("samples").values()) >= before + ROWS, "the samples", 120)
    for role in roles:
        until(role.level, lambda role=role: f"the lake {role.where}: {role.trouble()}, {role.figures()}")
        role.process.terminate()
        assert role.process.wait(10) == 0
    records = {}
    for row in loop.read("samples", {}):
        key = tuple(row.record[name] for name in ("source", "partition", "offset", "target"))
        records.setdefault(key, {**row.record, "at_partition": row.partition, "at_offset": row.offset})
    assert len(records) >= ROWS
    for role in roles:
        holds(role.where, records)
        assert on_stack("samples", "stats", "--verify", "--lake", role.where).returncode == 0
    assert on_stack("samples", "diff", *[role.where for role in roles]).returncode == 0


def holds(where: str, records: dict[tuple[object, ...], dict[str, object]]) -> None:
    """The lake at `where` holds these and no others, each once, bit by bit."""
    table = lake.read(where)
    held = {tuple(row[name] for name in ("source", "partition", "offset", "target")): row for row in table.to_pylist()}
    assert len(held) == len(table) == len(records) and held.keys() == records.keys()
    for key, record in records.items():
        for name, value in record.items():
            got = held[key][name]
            assert (np.array(got, PACKED[name].to_pandas_dtype()).tobytes() if name in PACKED else got) == value, (key, name)
