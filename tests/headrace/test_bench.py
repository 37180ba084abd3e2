"""The bench frame, and every bench of the catalog at its quick size."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace.bench.catalog import CATALOG, Entry
from headrace.bench.result import Result, Row
from headrace.bench.run import BenchNeeds, UnknownBench, run
from headrace.commands.bench import command

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
APP = typer.Typer()
APP.command()(command)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_ratio_above_one_is_better_than_the_peer(value, peer):
    assert (Row("r", value, "rows/s", "peer", peer).ratio > 1) == (value > peer)
    assert Row("r", value, "rows/s", "peer", peer).ratio == value / peer
    assert Row("t", value, "ms", "peer", peer).ratio == Row("t", value, "nats", "peer", peer).ratio == peer / value


def test_without_a_peer_there_is_no_ratio():
    assert Row("r", 1.0, "rows/s").ratio is None
    assert Row("t", 0.0, "ms", "peer", 1.0).ratio is None


def test_the_document_is_the_contracts():
    document = Result("b", 1.5, [Row("n", 2.0, "ms", "peer", 4.0, "a note"), Row("m", 1.0, "rows")], 2, quick=True).document()
    assert list(document) == ["bench", "versions", "cores", "seconds", "rows"]
    assert document["rows"] == [
        {"name": "n", "value": 2.0, "unit": "ms", "of": "peer", "of_value": 4.0, "ratio": 2.0, "note": "quick; a note"},
        {"name": "m", "value": 1.0, "unit": "rows", "of": None, "of_value": None, "ratio": None, "note": "quick"}]
    assert {"python", "numpy", "pyarrow"} <= set(document["versions"])


def test_what_never_came_is_null_in_json():
    row = Result("b", 1.0, [Row("n", float("inf"), "ms", "peer", 4.0)], 2).document()["rows"][0]
    assert row["value"] is None and row["ratio"] == 0.0
    json.dumps(row, allow_nan=False)


def test_unknown_names_and_missing_packages():
    with pytest.raises(UnknownBench, match=re.escape(f"known: {', '.join(CATALOG)}")):
        run("none")
    with pytest.raises(BenchNeeds, match="pip install 'some\\[bench\\]'"):
        run("x", catalog={"x": Entry("no_such_module", "nothing", "some[bench]")})


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if not entry.stack])  # those: tests/end_to_end/
def test_every_bench_measures_in_its_quick_size(name, tmp_path, monkeypatch):
    """A bench on real data fetches what it can to the working directory, and says what it left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("headrace.bench.ps_scale.ROWS_QUICK", 300_000)  # its own needs 4.5 GB
    if CATALOG[name].peer and shutil.which(CATALOG[name].peer) is None:
        pytest.skip(f"measures beside {CATALOG[name].peer}: apt-get install {CATALOG[name].peer}")
    if CATALOG[name].data and not SHARED.exists():
        pytest.skip("needs ../shared/data")
    data = ["--data", str(SHARED)] if CATALOG[name].data else []
    assert callable(importlib.import_module(f"headrace.bench.{CATALOG[name].module}").measure)
    done = CliRunner().invoke(APP, [name, "--quick", *data, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["bench"] == name and document["seconds"] > 0 and document["rows"]
    for row in document["rows"]:
        assert set(row) == {"name", "value", "unit", "of", "of_value", "ratio", "note"}
        assert row["value"] > 0 and "quick" in row["note"]
        assert row["of"] is None or (row["of_value"] > 0 and row["ratio"] > 0)
    assert any(row["of"] for row in document["rows"])


def test_the_list_says_what_each_needs():
    done = CliRunner().invoke(APP, ["--list"])
    assert done.exit_code == 0
    assert all(f"{name}: " in done.output for name in CATALOG) and "needs headrace[serve]" in done.output
    assert CliRunner().invoke(APP, []).exit_code == 2
    assert CliRunner().invoke(APP, ["none"]).exit_code == 1
    assert CliRunner().invoke(APP, ["rpc", "--data", "."]).exit_code == 1  # it takes none
