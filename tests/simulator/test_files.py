"""The files: the same bytes for the same seed, taken by replay and the schemas, and no truth in the log."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from headrace import rows
from headrace.cli import _app
from headrace.schemas.codec import Codec
from headrace.schemas.mapping import load
from headrace.schemas.registry_store import SchemaStore
from headrace.simulator import files, regret, texts
from tests.simulator.worlds import world

NAMES = {"log.parquet", "truth.parquet", "mapping.toml", "materials.jsonl", "relations.jsonl", "actions.jsonl", "summary.json"}
WRITE = """
import sys
from pathlib import Path
from tests.simulator.worlds import world
from headrace.simulator import files
files.write(world("spam-attack"), Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("world")
    files.write(world("spam-attack"), made)
    return made


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_same_seed_gives_the_same_bytes_on_another_processor(folder, tmp_path):
    """Without the vector instructions that this processor has, numpy's exp and sums differ in their last digits."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    without = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    environ = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(without), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / "w")], check=True, env=environ, cwd=Path(__file__).parents[2])
    assert digests(tmp_path / "w") == digests(folder) and set(digests(folder)) == NAMES


def test_another_seed_gives_another_world(folder, tmp_path):
    files.write(world("spam-attack", seed=4), tmp_path)
    same = {name for name, digest in digests(tmp_path).items() if digests(folder)[name] == digest}
    assert same == {"mapping.toml"}


def test_replay_takes_the_log(folder):
    read = rows.load(folder / "log.parquet", load(folder / "mapping.toml"))
    people = np.array([int(user[1:]) < 60 for user in read.user.to_pylist()])
    assert people.sum() > 5000 and 0.04 < read.label[people].mean() < 0.15 and read.label[~people].all()
    assert set(read.features) == {"daypart", "user.age", "user.speaks", "item.topic", "item.author", "item.language"}
    assert all(column.null_count == 0 for column in read.features.values())


def test_the_truth_stands_in_no_column_of_the_log(folder):
    log, truth = pq.read_table(folder / "log.parquet"), pq.read_table(folder / "truth.parquet")
    assert len(log) == len(truth) and not set(log.column_names) & set(truth.column_names)
    p = truth["click_probability"].to_numpy()
    people = np.array([int(user[1:]) < 60 for user in log["user_id"].to_pylist()])
    for name in ("request", "ts_ms"):
        assert abs(np.corrcoef(log[name].to_numpy()[people], p[people])[0, 1]) < 0.1
    click = log["click"].to_numpy()[people]
    assert click.mean() == pytest.approx(p[people].mean(), abs=0.01)
    high = p[people] > np.quantile(p[people], 0.9)
    assert click[high].mean() > 2 * click[~high].mean()


@pytest.mark.parametrize("name, file", [("materials", "materials.jsonl"), ("relations", "relations.jsonl")])
def test_records_are_those_of_the_schemas(folder, name, file):
    codec, records = Codec(name, SchemaStore(None)), lines(folder / file)
    assert records and [one["ts_ms"] for one in records] == sorted(one["ts_ms"] for one in records)
    for record in records[:: max(1, len(records) // 50)]:
        assert codec.decode(codec.encode(record)) == record


def test_actions_are_the_logs_clicks_and_come_after_their_exposures(folder):
    log, done = pq.read_table(folder / "log.parquet").to_pylist(), lines(folder / "actions.jsonl")
    shown = {(f"r{row['request']:08d}", row["position"]): row for row in log}
    clicks = 0
    for action in done:
        row = shown[action["request_id"], action["position"]]
        assert (row["user_id"], row["item_id"]) == (action["user_id"], action["item_id"]) and action["ts_ms"] > row["ts_ms"]
        clicks += action["action"] == "click"
    late = clicks - sum(row["click"] for row in log)
    assert 0 <= late < 0.01 * clicks and {"click", "like", "dwell", "hide"} <= {action["action"] for action in done}
    assert len({action["event_id"] for action in done}) == len(done)


def test_texts_are_of_their_topic_and_language(folder):
    words = {topic["name"]: topic for topic in texts.vocabulary()["topics"]}
    materials = lines(folder / "materials.jsonl")
    assert {m["fields"]["language"] for m in materials} == {"zh", "en"} and len({m["text"] for m in materials}) > len(materials) // 2
    for material in materials:
        topic, language = words[material["tags"][0]], material["fields"]["language"]
        assert any(word in material["text"] for word in topic[language]), material
        assert (max(map(ord, material["text"])) > 0x4E00) == (language == "zh")


def test_regret_and_calibration_are_what_they_say():
    best, shown = np.array([2.0, 2.0, 1.0, 3.0]), np.array([1.0, 2.0, 0.5, 0.5])
    rows = regret.windows(np.array([0.1, 0.2, 1.5, 1.9]), best, shown)
    assert [(row["day"], row["requests"], row["regret"]) for row in rows] == [(0.0, 2, 0.5), (1.0, 2, 1.5)]
    truth = np.linspace(0.01, 0.3, 1000)
    assert regret.calibration(truth, truth) == {"exposures": 1000, "ratio": 1.0, "error": 0.0, "rmse": 0.0}
    doubled = regret.calibration(2 * truth, truth)
    assert doubled["ratio"] == pytest.approx(2) and doubled["error"] == pytest.approx(truth.mean())
    assert regret.calibration(np.empty(0), np.empty(0))["ratio"] is None


def test_an_outage_is_a_hole_in_the_log_and_poison_shows_in_the_labels(tmp_path):
    out = files.write(world("outage"), tmp_path / "o")
    ts_ms = pq.read_table(tmp_path / "o" / "log.parquet")["ts_ms"].to_numpy()
    assert out["exposures_lost"] > 0 and out["exposures"] == len(ts_ms) and np.diff(ts_ms).max() >= 6 * 3_600_000
    poisoned = files.write(world("poisoned-labels"), tmp_path / "p")
    label, true = (pq.read_table(tmp_path / "p" / name)[column].to_numpy(zero_copy_only=False)
                   for name, column in (("log.parquet", "click"), ("truth.parquet", "clicked")))
    assert poisoned["clicks"] == label.sum() > 1.3 * true.sum()


def test_the_command_writes_files_and_refuses_in_a_sentence(tmp_path):
    sizes = ["--users", "20", "--items", "100", "--days", "2"]
    asked = ["simulate", *sizes, "--to", str(tmp_path / "w"), "--report", str(tmp_path / "r.json")]
    done = CliRunner().invoke(_app("simulate"), asked)
    assert done.exit_code == 0 and "headrace replay" in done.stdout
    assert {file.name for file in (tmp_path / "w").iterdir()} == NAMES
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads((tmp_path / "w" / "summary.json").read_text())
    wrong = CliRunner().invoke(_app("simulate"), [*asked, "--scenario", "clam"])
    assert wrong.exit_code == 1 and "the nearest is 'calm'" in wrong.output
    assert "poisoned-labels: " in CliRunner().invoke(_app("simulate"), ["simulate", "--list"]).stdout
