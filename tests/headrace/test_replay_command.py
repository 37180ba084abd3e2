"""`headrace replay` as it is typed: what it says when it cannot start."""

from __future__ import annotations

import json
import time

import pyarrow as pa
import pyarrow.parquet
import pytest
import typer
from typer.testing import CliRunner

from headrace.commands.replay import command, table

APP = typer.Typer()
APP.command()(command)
MAPPING = '[columns]\nuser_id = "u"\nitem_id = "i"\nts = "t"\nlabel = "rating >= 4"\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "m.toml").write_text(MAPPING)
    (tmp_path / "h.toml").write_text('[kafka]\nbootstrap = "127.0.0.1:1"\n')
    pa.parquet.write_table(pa.table({"u": ["u"], "i": ["i"], "t": [1_600_000_000], "rating": [5]}), tmp_path / "f.parquet")
    return tmp_path


def said(folder, *arguments: str) -> str:
    done = CliRunner().invoke(APP, [*arguments, "--config", str(folder / "h.toml")])
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    return done.output


def test_a_missing_file_a_missing_column_and_a_typo(folder):
    file, mapping = str(folder / "f.parquet"), str(folder / "m.toml")
    assert "No such file" in said(folder, str(folder / "none.parquet"), "--mapping", mapping)
    (folder / "n.toml").write_text(MAPPING.replace('"t"', '"time"'))
    missing = said(folder, file, "--mapping", str(folder / "n.toml"))
    assert "no column 'time' that the mapping names; its columns: u, i, t, rating" in missing
    (folder / "n.toml").write_text(MAPPING + '[contxt]\nfields = ["a"]\n')
    assert "unknown key 'contxt'; the nearest is 'context'" in said(folder, file, "--mapping", str(folder / "n.toml"))
    assert "write max, 1x, 10x" in said(folder, file, "--mapping", mapping, "--speed", "fast")
    (folder / "h.toml").write_text('[kafka]\nbootstraps = "x"\n')
    assert "the nearest is 'kafka.bootstrap'" in said(folder, file, "--mapping", mapping)


def test_an_unreachable_broker_is_said_within_ten_seconds(folder):
    started = time.monotonic()
    assert "no Kafka broker answers at 127.0.0.1:1" in said(folder, str(folder / "f.parquet"), "--mapping", str(folder / "m.toml"))
    assert time.monotonic() - started < 10


def test_the_table_leaves_windows_out():
    shown = table({"rows": 3, "auc": 0.75, "windows": [{"samples": 1}]})
    assert shown.row_count == 2


def test_a_mapping_is_proposed_tried_and_asked_for(folder):
    rows = {"user_id": ["a", "a", "b", "b"], "item_id": ["x", "y", "x", "y"], "ts": [1_600_000_000] * 4, "click": [0, 1, 0, 1]}
    file, mapping = folder / "g.parquet", folder / "g.toml"
    pa.parquet.write_table(pa.table(rows), file)
    done = CliRunner().invoke(APP, [str(file), "--guess"])
    assert done.exit_code == 0 and 'label = "click"  # two values, the upper one in 50.0% of rows' in done.output
    mapping.write_text(done.output)
    done = CliRunner().invoke(APP, [str(file), "--mapping", str(mapping), "--check", "--report", str(folder / "r.json")])
    assert done.exit_code == 0 and "4 rows: 4 accepted, 0 rejected; 2 positives (50.0%), 2 users, 2 items" in done.output
    assert "odd: all rows have one time" in done.output
    assert json.loads((folder / "r.json").read_text())["accepted"] == 4
    pa.parquet.write_table(pa.table({**rows, "user_id": ["a", "", "b", "b"]}), file)
    done = CliRunner().invoke(APP, [str(file), "--mapping", str(mapping), "--check"])
    assert done.exit_code == 1 and "1 x user_id is empty" in done.output and "row 1: column 'user_id' is empty" in done.output
    assert "--guess > mapping.toml proposes one" in said(folder, str(file))
    pa.parquet.write_table(pa.table({"a": [1, 2]}), file)
    assert "no column looks like the user" in said(folder, str(file), "--guess")
