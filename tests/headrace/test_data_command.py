"""`headrace data compact` and `expire`, of a folder and on an S3 server: what they print, and a sentence for what is asked for wrongly."""

import json

import pytest

from headrace import cli
from headrace.lake import reader
from headrace.lake.place import Place
from tests.headrace.lake import worlds
from tests.headrace.lake.test_compact import HOUR_MS, lake_of


@pytest.fixture(params=["folder", "s3"])
def folder(request, tmp_path):
    where = str(tmp_path) if request.param == "folder" else f"s3://{request.getfixturevalue('bucket')}/lake"
    lake_of(Place(where), worlds.ListTopic([worlds.sample(n, ts_ms=worlds.BEGIN_MS + HOUR_MS * (n % 4)) for n in range(12)]))
    return where


def run(capsys, *arguments, code=0):
    try:
        cli.main(["data", *map(str, arguments)])
    except SystemExit as ended:
        assert (ended.code or 0) == code
    return capsys.readouterr()


def test_compact(folder, capsys):
    assert "12 files" in (said := run(capsys, "compact", "--lake", folder).out) and "are 6" in said and "12 samples as before" in said
    assert "nothing to do: 6 files of 12 samples" in run(capsys, "compact", "--lake", folder).out
    assert json.loads(run(capsys, "compact", "--lake", folder, "--open", "--json").out)["files"] == [6, 4]
    told = json.loads(run(capsys, "compact", "--lake", folder, "--json").out)
    assert not told["changed"] and told["rows"] == [12, 12]


def test_expire_says_what_would_go_and_goes_ahead_with_yes(folder, capsys):
    would = run(capsys, "expire", "--lake", folder, "--before", "2026-11-30T08", code=2)
    assert "would remove: 6 of 12 samples" in would.out and "of 2 hours before 2026-11-30 08:00 UTC" in would.out and "--yes" in would.err
    assert len(reader.read(folder)) == 12
    assert "removed: 6 of 12 samples" in run(capsys, "expire", "--lake", folder, "--older-than", "1h", "--yes").out
    assert len(reader.read(folder)) == 6


@pytest.mark.parametrize("arguments, says", [
    ([], "either --before TIME or --older-than AGE"), (["--before", "soon"], "'soon' is no time"),
    (["--older-than", "30"], "'30' has no unit"), (["--before", "2026-11-30", "--older-than", "1d"], "either --before")])
def test_what_is_asked_for_wrongly(folder, capsys, arguments, says):
    assert says in run(capsys, "expire", "--lake", folder, *arguments, code=2).err


def test_no_lake(tmp_path, capsys):
    for arguments in (["compact"], ["expire", "--before", "2026-11-30"]):
        assert "there is no lake in" in run(capsys, *arguments, "--lake", tmp_path / "none", code=2).err
