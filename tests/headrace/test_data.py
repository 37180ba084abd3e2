"""`headrace data get`, from a wheel made here: no network."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from headrace import kuairand, movielens, rows
from headrace.commands.data import app
from headrace.schemas import mapping

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCES = {
    "inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
             b"1\t10\t4\t881250950\n2\t20\t3\t881250949\n1\t20\t5\t881250950\n",
    "item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            b"10\tToy \"Story\t1995\tAnimation Children's Comedy\n20\tunknown\t\t\n",
    "user": b"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
            b"1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n",
}
SHA256 = {name: hashlib.sha256(data).hexdigest() for name, data in SOURCES.items()}


def wheel_in(folder: Path, sources: dict[str, bytes] = SOURCES) -> Path:
    path = folder / "recbole-1.2.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in sources.items():
            archive.writestr(movielens.MEMBER + name, data)
    return path


def test_joined_in_time_order_with_mapping_and_terms(tmp_path):
    path, cached = movielens.get(tmp_path / "ml", wheel_in, SHA256)
    assert not cached
    assert pa.parquet.read_table(path).to_pylist() == [
        {"user_id": "2", "item_id": "20", "rating": 3, "timestamp": 881250949, "age": "53", "gender": "F", "occupation": "other",
         "genre": None, "year": None, "title": "unknown"},
        {"user_id": "1", "item_id": "10", "rating": 4, "timestamp": 881250950, "age": "24", "gender": "M", "occupation": "technician",
         "genre": "Animation|Children's|Comedy", "year": "1995", "title": 'Toy "Story'},
        {"user_id": "1", "item_id": "20", "rating": 5, "timestamp": 881250950, "age": "24", "gender": "M", "occupation": "technician",
         "genre": None, "year": None, "title": "unknown"},
    ]
    loaded = rows.load(path, mapping.load(tmp_path / "ml" / "mapping.toml"))
    assert loaded.label.tolist() == [False, True, True]
    assert loaded.features["item.genre"].to_pylist()[1] == "Animation|Children's|Comedy"
    terms = (tmp_path / "ml" / "TERMS.txt").read_text()
    assert all(word in terms for word in ("research", "redistribute", "Commercial", "Harper", "Konstan", "2015"))
    assert sorted(file.name for file in (tmp_path / "ml").iterdir()) == ["TERMS.txt", "mapping.toml", "movielens-100k.parquet"]


def test_a_second_time_fetches_nothing(tmp_path):
    movielens.get(tmp_path, wheel_in, SHA256)

    def never(folder: Path) -> Path:
        raise AssertionError("fetched again")

    assert movielens.get(tmp_path, never, SHA256)[1]
    (tmp_path / "movielens-100k.parquet").write_bytes(b"torn")
    assert not movielens.get(tmp_path, wheel_in, SHA256)[1]


def test_a_changed_byte_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(movielens.DataError, match="not the data that this was made for"):
        movielens.get(tmp_path / "ml", wheel_in)
    assert not (tmp_path / "ml").exists()
    with pytest.raises(movielens.DataError, match="does not hold MovieLens"):
        movielens.get(tmp_path / "ml", lambda folder: wheel_in(folder, {"other": b""}))


def test_pip_is_asked_without_dependencies_and_its_error_is_shown(tmp_path, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: No matching distribution found\n")

    monkeypatch.setattr(movielens.subprocess, "run", run)
    with pytest.raises(movielens.DataError, match="ERROR: No matching distribution found"):
        movielens.fetch_wheel(tmp_path)
    assert asked[0][1:4] == ["-m", "pip", "download"] and "--no-deps" in asked[0] and asked[0][-1] == "recbole==1.2.1"


def test_kuairand_gets_duration_and_hour(tmp_path):
    events = pa.table({"ts_ms": [1649346288441, 1649346288441], "user_id": [1, 2], "video_id": [3, 4], "is_click": [1, 0],
                       "duration_ms": [18983, 0], "play_time_ms": [1, 2]})
    pa.parquet.write_table(events, tmp_path / kuairand.SOURCE)
    path = kuairand.get(tmp_path, tmp_path / "out")
    loaded = rows.load(path, mapping.load(tmp_path / "out" / "mapping.toml"))
    assert loaded.features["duration"].to_pylist() == ["1", None]
    assert loaded.features["hour"].to_pylist() == ["23", "23"]  # 15:44 UTC
    assert loaded.label.tolist() == [True, False]
    with pytest.raises(movielens.DataError, match="--from is the folder"):
        kuairand.get(tmp_path / "none", tmp_path / "out")


def test_the_examples_are_the_mappings_that_are_written():
    assert mapping.parse(mapping.tomllib.loads(movielens.MAPPING)) == mapping.load(EXAMPLES / "movielens.toml")
    assert mapping.parse(mapping.tomllib.loads(kuairand.MAPPING)) == mapping.load(EXAMPLES / "kuairand.toml")


def test_the_command_shows_the_terms_and_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setattr(movielens, "fetch_wheel", wheel_in)
    monkeypatch.setattr(movielens, "SHA256", SHA256)
    done = CliRunner().invoke(app, ["get", "movielens-100k", "--to", str(tmp_path / "ml")])
    assert done.exit_code == 0, done.output
    assert "Konstan" in done.output and f"headrace replay {tmp_path / 'ml'}" in done.output.replace("\n", "")
    assert CliRunner().invoke(app, ["get", "netflix"]).exit_code == 1
    assert CliRunner().invoke(app, ["get", "kuairand"]).exit_code == 1
