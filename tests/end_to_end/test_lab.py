"""The stack as Arrow tables against what is counted from outside, and both notebooks, executed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headrace.features.layout import NUMBERS, F
from headrace.lab import Lab
from tests.end_to_end.outside import heartbeat, until

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
MAPPING = Path(__file__).parents[2] / "examples" / "kuairand.toml"


@pytest.fixture(scope="module")
def lab(loop, on_stack, kuairand) -> Lab:
    done = on_stack("replay", str(kuairand), "--mapping", str(MAPPING), "--clock", "now", "--speed", "max", "--limit", "1500")
    assert done.returncode == 0, done.stderr
    return Lab(loop.config)


def test_samples_are_those_of_the_topic_each_once_with_their_features(loop, lab):
    outside = loop.samples({})
    table = lab.samples()
    causes = list(zip(*(table[name].to_pylist() for name in ("source", "partition", "offset")), strict=True))
    assert set(causes) == set(outside) and len(causes) == len(set(causes))
    assert table["ts_ms"].to_pylist() == sorted(table["ts_ms"].to_pylist())
    keys = table["keys"].combine_chunks().flatten().to_numpy().reshape(len(table), F)
    for row in (0, len(table) // 2, len(table) - 1):
        record = outside[causes[row]]
        assert keys[row].tolist() == np.frombuffer(record["feature_keys"], "<u8").tolist()
        assert [table[name][row].as_py() for name in NUMBERS] == np.frombuffer(record["numbers"], "<f4").tolist()
        assert table["label"][row].as_py() == record["label"]


def test_a_topic_whole_and_its_newest(loop, lab):
    table = lab.topic("interactions")
    assert len(table) >= len([row for row in loop.read("interactions", {}) if not heartbeat(row)])
    newest = lab.topic("interactions", limit=8)
    assert 0 < len(newest) <= 8 + loop.config.kafka.partitions
    assert len(lab.topic("interactions", minutes=1e-6)) <= len(table)


def test_metrics_add_up_to_what_the_shards_have_applied(loop, lab):
    until(lambda: sum(lab.metrics()["samples"].to_pylist()) == loop.applied()[0], "every sample applied stands in a window", 60)
    assert all(0 <= value <= 1 for value in lab.metrics()["auc"].to_pylist() if value is not None)


def test_features_of_a_user_are_the_engines(loop, lab):
    row = lab.samples(limit=100)
    user, item = row["user_id"][-1].as_py(), row["item_id"][-1].as_py()
    now = loop.http.get(f"{loop.config.engine.url}/features", params={"user": user, "item": item, "ts_ms": 1_800_000_000_000}).json()
    table = lab.features(user, [item], ts_ms=1_800_000_000_000)
    for slot in now["slots"]:
        assert table[slot["slot"]][0].as_py() == pytest.approx(slot["value"])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_its_first_cell_to_its_last(loop, lab, notebook, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("HEADRACE_STACK__DATA_DIR", str(loop.config.stack.data_dir))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    read = nbformat.read(notebook, as_version=4)
    NotebookClient(read, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert not any(output.get("output_type") == "error" for cell in read.cells for output in cell.get("outputs", []))
    kept = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code" and cell["outputs"]]
    assert not kept, "notebooks are kept without output"
