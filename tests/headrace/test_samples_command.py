"""`headrace samples`: what it prints of a lake, and a sentence for what is asked for wrongly."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest

from headrace import cli
from headrace.features.layout import FEATURE_SET, NUMBERS, SLOTS, F, K
from headrace.lake.place import Place
from headrace.models import choice
from headrace.models.progressive import sampled
from tests.headrace.lake import worlds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten samples of 06:59 and 07:00 with features of our set, a duplicate, a damaged record, a gap."""
    made = tmp_path_factory.mktemp("lake")
    keys = np.arange(F, dtype="<u8")
    records = [worlds.sample(n, label=float(n == 3), ts_ms=worlds.BEGIN_MS + 60_000 * (n // 5), target="like" if n == 9 else "click")
               | {"feature_set": FEATURE_SET, "feature_keys": keys.tobytes(), "feature_values": np.full(F, n, "<f4").tobytes(),
                  "numbers": np.full(K, np.nan if n == 3 else 0.5, "<f4").tobytes()} for n in range(10)]
    topic = worlds.ListTopic([*records, records[2], "bad_magic: 7b"])
    worlds.drain(worlds.writer(made, topic), topic)
    topic.partitions[0] += [worlds.sample(40), worlds.sample(41, label=1.0, ts_ms=worlds.BEGIN_MS)]
    topic.low[0] = 13
    worlds.drain(worlds.writer(made, topic), topic)
    return made


def run(capsys, *arguments, code=0):
    try:
        cli.main(["samples", *map(str, arguments)])
    except SystemExit as ended:
        assert (ended.code or 0) == code
    return capsys.readouterr()


def test_list(folder, capsys):
    rows = json.loads(run(capsys, "list", "--lake", folder, "--json").out)
    assert [(row["day"], row["hour"], row["files"], row["rows"]) for row in rows] == [("2026-11-30", 6, 2, 6), ("2026-11-30", 7, 1, 5)]
    assert rows[0]["labels"] == {"click": {"rows": 6, "positives": 2, "rate": 2 / 6}} and rows[1]["labels"]["like"]["rows"] == 1
    assert "2026-11-30  06    2      6" in run(capsys, "list", "--lake", folder).out
    commits = json.loads(run(capsys, "list", "--commits", "--lake", folder, "--json").out)
    assert [(one["commit"], one["rows"], one["duplicates"], one["unreadable"], one["gap_offsets"]) for one in commits] == [
        (1, 10, 1, 1, 0), (2, 1, 0, 0, 1)]
    assert commits[1]["offsets"] == {"0": [12, 14]} and "gap" in run(capsys, "list", "--commits", "--lake", folder).out


def test_a_lake_on_an_object_store(folder, capsys, bucket):
    """As it is read from a folder, and compared with one; what the store refuses is a sentence."""
    place, topic = Place(f"s3://{bucket}/lake"), worlds.ListTopic([worlds.sample(n) for n in range(3)])
    worlds.drain(worlds.writer(place, topic), topic)
    [row] = json.loads(run(capsys, "list", "--lake", place.where, "--json").out)
    assert (row["day"], row["hour"], row["rows"]) == ("2026-11-30", 6, 3)
    assert f"in {place.where}" in run(capsys, "stats", "--verify", "--lake", f"{place.where}@1").out
    assert "equal: 3 samples" in run(capsys, "diff", place.where, f"{place.where}@1").out
    assert f"only in {folder}: 8" in run(capsys, "diff", place.where, folder, code=1).out
    for wrong, code, says in ((f"s3://{bucket}/none", 2, "there is no lake in s3://"), ("s3://no-such-bucket/lake", 1, "make the bucket"),
                              (f"{place.where}@7", 2, "the lake has commits 1 to 1"), ("ftp://there/lake", 2, "ftp:// is not built")):
        told = run(capsys, "list", "--lake", wrong, code=code).err
        assert told.startswith("error: ") and says in told and told.count("\n") == 1


def test_show_by_event_and_by_cause(folder, capsys):
    [told] = json.loads(run(capsys, "show", "e1-3", "--lake", folder).out)
    assert told == json.loads(run(capsys, "show", "1:3", "--lake", folder).out)[0]
    assert list(told["features"]) == list(SLOTS) and told["features"]["item_id"] == {"key": f"{2:016x}", "value": 3.0}
    assert told["numbers"] == dict.fromkeys(NUMBERS), "what JSON cannot say is null"
    assert (told["label"], told["target"], told["arms"], told["score"]) == (1.0, "click", ["layer=arm"], None)
    lineage = told["lineage"]
    assert (lineage["source"], lineage["partition"], lineage["offset"], lineage["at_partition"], lineage["at_offset"]) == (7, 1, 3, 0, 3)
    assert lineage["feature_set"] == FEATURE_SET and lineage["code"].startswith("0.") and lineage["topic_id"] == "uuid-1"
    assert lineage["file"].endswith("day=2026-11-30/hour=06/00000001.parquet") and lineage["commit"] == 1
    [other] = json.loads(run(capsys, "show", "1:41", "--lake", folder).out)
    assert list(other["features"]) == ["0", "1", "2", "3", "4"], "a feature set that is not ours is told by place"


def test_stats(folder, capsys):
    told = json.loads(run(capsys, "stats", "--lake", folder, "--verify", "--json").out)
    assert (told["rows"], told["records"], told["duplicates"], told["unreadable"], told["gap_offsets"]) == (11, 13, 1, 1, 1)
    assert told["feature_sets"] == {FEATURE_SET: 10, "base@0": 1} and told["days"]["2026-11-30"]["rows"] == 11
    said = run(capsys, "stats", "--lake", folder, "--verify").out
    for words in ("11 samples", "click 0.2000, like 0.0000", "1 further records of a sample",
                  "not readable, and not in the lake: 1; the first, partition 0 offset 11: bad_magic",
                  "GAP: offsets 12 to 12 of partition 0", "every file has the sha256"):
        assert words in said, said


def test_export(folder, tmp_path, capsys):
    assert "11 samples in" in run(capsys, "export", tmp_path / "all.parquet", "--lake", folder).out
    table = pyarrow.parquet.read_table(tmp_path / "all.parquet")
    assert len(table) == 11 and table["ts_ms"].to_pylist() == sorted(table["ts_ms"].to_pylist())
    assert "4 samples" in run(capsys, "export", tmp_path / "some.csv", "--lake", folder, "--since", "2026-11-30T07", "--until",
                              "2026-11-30T08", "--target", "click").out
    rows = list(csv.DictReader((tmp_path / "some.csv").open()))
    assert [row["event_id"] for row in rows] == ["e1-5", "e1-6", "e1-7", "e1-8"]
    assert rows[0]["feature_keys"] == "|".join(map(str, range(F))) and rows[0]["arms"] == "layer=arm" and rows[0]["model"] == ""
    assert "0 samples" in run(capsys, "export", tmp_path / "none.parquet", "--lake", folder, "--until", "1999-01-01").out
    assert pyarrow.parquet.read_table(tmp_path / "none.parquet").schema == table.schema
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "none.parquet", "some.csv"]


def test_diff(folder, capsys):
    assert run(capsys, "diff", folder, folder).out == "equal: 11 samples\n"
    told = run(capsys, "diff", f"{folder}@1", folder, code=1).out
    assert "in both: 10, of which 0 differ" in told and '"event_id": "e1-41"' in told
    found = json.loads(run(capsys, "diff", f"{folder}@1", folder, "--json", code=1).out)
    assert (found["equal"], found["only"], found["columns"]) == (False, [0, 1], {})
    chosen = ["--since", "2026-11-30T07", "--by-event", "--ignore", "score"]
    assert run(capsys, "diff", f"{folder}@1", folder, *chosen).out == "equal: 5 samples\n"


@pytest.mark.parametrize("arguments, code, words", [
    (["list", "--lake", "NOWHERE"], 2, "there is no lake in NOWHERE: `lake.enabled = true`"),
    (["list", "--lake", "LAKE@7"], 2, "has commits 1 to 2"),
    (["show", "nobody", "--lake", "LAKE"], 2, "holds no sample of event nobody up to commit 2; `headrace trace nobody`"),
    (["show", "1:99", "--lake", "LAKE"], 2, "holds no sample of cause 1:99"),
    (["export", "x.xlsx", "--lake", "LAKE"], 2, "name it FILE.parquet or FILE.csv"),
    (["export", "absent/x.csv", "--lake", "LAKE"], 1, "No such file or directory"),
    (["export", "x.csv", "--lake", "LAKE", "--since", "noon"], 2, "'noon' is no time"),
    (["diff", "LAKE", "NOWHERE"], 2, "there is no lake in NOWHERE"),
    (["diff", "LAKE", "LAKE", "--ignore", "lable"], 2, "--ignore lable: a lake has no such column; it has source"),
])
def test_an_error_is_one_sentence(folder, tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    told = run(capsys, *(word.replace("LAKE", str(folder)) for word in arguments), code=code).err
    assert told.startswith("error: ") and words in told and "Traceback" not in told and told.count("\n") == 1


def test_the_lake_of_the_configuration(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(f'[lake]\ndir = "{folder}"\n')
    assert json.loads(run(capsys, "stats", "--json").out)["rows"] == 11
    (tmp_path / "headrace.toml").unlink()
    assert "there is no lake in .headrace/lake" in run(capsys, "stats", code=2).err


def test_a_damaged_file_is_a_sentence(folder, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file = next(copy.rglob("hour=07/*.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    told = run(capsys, "stats", "--verify", "--lake", copy, code=1).err
    assert told == (f"error: {file} does not have the sha256 that its manifest says: restore it from a copy of the lake, or keep the folder"
                    " and set lake.dir to a new one\n")


def test_stats_count_what_training_leaves_out(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "left_out" not in json.loads(run(capsys, "stats", "--lake", folder, "--json").out)
    (tmp_path / "headrace.toml").write_text("[samples.noise]\ninactive_user_events = 1\n")
    told = json.loads(run(capsys, "stats", "--lake", folder, "--json").out)["left_out"]
    assert told["click"] == {"inactive_users": 9, "negatives_left_out": 0, "accidental_clicks": 0}, "one has no number"
    made = tmp_path / "lake"
    topic = worlds.ListTopic([worlds.sample(n, label=float(n % 4 == 0)) for n in range(400)]
                             + [worlds.sample(n, target="like", action_ts_ms=5) for n in range(3)])
    worlds.drain(worlds.writer(made, topic), topic)
    (tmp_path / "headrace.toml").write_text("[samples]\nnegatives_kept = 0.25\n[samples.noise]\naccidental_click_below_s = 2.0\n")
    told = json.loads(run(capsys, "stats", "--lake", made, "--json").out)["left_out"]
    kept = sampled(np.full(400, 7), np.full(400, 1), np.arange(400), 0.25, choice._SALT)
    gone = int((~kept & (np.arange(400) % 4 != 0)).sum())
    assert told["click"] == {"inactive_users": 0, "negatives_left_out": gone, "accidental_clicks": 0} and 195 < gone < 255
    assert told["like"]["accidental_clicks"] == 3
    assert f"{gone:,} negatives are scored and not learnt" in run(capsys, "stats", "--lake", made).out
