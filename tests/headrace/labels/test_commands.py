"""`headrace labels` and `samples export --people` over labels in memory and a lake of files."""

import json

import pyarrow.parquet
import pytest

from headrace import cli
from headrace.labels import live
from headrace.labels.label import newest
from tests.headrace.labels.test_labels import label
from tests.headrace.lake import worlds


@pytest.fixture
def topic(monkeypatch):
    """Labels that are held; `send` adds to them."""
    held = []
    monkeypatch.setattr(live, "held", lambda config: newest(held))
    monkeypatch.setattr(live, "send", lambda config, labels: len(labels) if not held.extend(labels) else 0)
    return held


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Ten samples, scored: the fifth is the least certain."""
    made = tmp_path_factory.mktemp("lake")
    records = [worlds.sample(n) | {"item_id": f"i{n}", "user_id": "u", "model": "fm", "version": 1, "score": n / 8} for n in range(9)]
    source = worlds.ListTopic(records)
    worlds.drain(worlds.writer(made, source), source)
    return made


def run(capsys, *arguments, code=0):
    try:
        cli.main(list(map(str, arguments)))
    except SystemExit as ended:
        assert (ended.code or 0) == code
    return capsys.readouterr()


def test_a_file_goes_in_and_comes_out(topic, capsys, tmp_path):
    (tmp_path / "some.csv").write_text("item_id,label\ni1,1\ni2,0\n")
    assert "2 labels in topic labels" in run(capsys, "labels", "import", tmp_path / "some.csv", "--labeller", "ann", "--target", "spam").out
    run(capsys, "labels", "import", tmp_path / "some.csv", "--labeller", "bob", "--target", "click")
    assert "2 labels in" in run(capsys, "labels", "export", tmp_path / "all.jsonl", "--target", "spam").out
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [(row["item_id"], row["user_id"], row["label"], row["labeller"]) for row in rows] == [
        ("i1", None, 1.0, "ann"), ("i2", None, 0.0, "ann")]
    run(capsys, "labels", "import", tmp_path / "all.jsonl")
    assert len(newest(topic)) == 4


def test_a_bad_file_is_a_sentence_and_nothing_of_it_is_sent(topic, capsys, tmp_path):
    (tmp_path / "bad.csv").write_text("item_id,label\ni1,1\ni2,maybe\n")
    told = run(capsys, "labels", "import", tmp_path / "bad.csv", "--labeller", "ann", "--target", "spam", code=2)
    assert "bad.csv, line 3: label is 'maybe'" in told.err and not topic
    assert "No such file" in run(capsys, "labels", "import", tmp_path / "none.csv", code=1).err


def test_what_is_next_is_uncertain_and_not_labelled(topic, lake, capsys):
    topic += [label("i3", labeller="ann", target="click")]
    rows = json.loads(run(capsys, "labels", "next", "--lake", lake, "-n", "3", "--labeller", "ann", "--json").out)
    assert [row["item_id"] for row in rows] == ["i4", "i5", "i2"] and rows[0]["bits"] == 1.0 and rows[0]["exposures"] == 1
    assert json.loads(run(capsys, "labels", "next", "--lake", lake, "--labeller", "bob", "--again", "--json").out)[0]["item_id"] == "i3"
    assert "i4" in run(capsys, "labels", "next", "--lake", lake).out
    assert "nothing of target spam" in run(capsys, "labels", "next", "--lake", lake, "--target", "spam").out
    assert "there is no lake" in run(capsys, "labels", "next", "--lake", lake / "none", code=2).err


def test_agreement_is_told(topic, capsys):
    assert "there are no labels" in run(capsys, "labels", "agreement").out
    topic += [label("i", value, name) for name, value in (("ann", 1.0), ("bob", 1.0), ("cat", 0.0))] + [label("j", 0.0, "ann")]
    told = run(capsys, "labels", "agreement").out
    assert "spam: 2 units labelled, 1 twice or more; Krippendorff's alpha 0.000" in told
    assert "ann and bob: 1 units, the same on 100.0%" in told
    [found] = json.loads(run(capsys, "labels", "agreement", "--json").out)
    assert found["alpha"] == 0.0 and [pair["same"] for pair in found["pairs"]] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_people_s_labels_are_over_what_users_did(topic, lake, capsys, tmp_path, kind):
    topic += [label("i3", 1.0, target="click")]
    run(capsys, "samples", "export", tmp_path / f"mine.{kind}", "--people", "--lake", lake)
    if kind == "parquet":
        made = pyarrow.parquet.read_table(tmp_path / "mine.parquet").to_pylist()
        assert {row["item_id"]: (row["label"], row["label_by"]) for row in made if row["label_by"] == "person"} == {"i3": (1.0, "person")}
        assert len(made) == 9
    else:
        text = (tmp_path / "mine.csv").read_text().splitlines()
        assert text[0].endswith('"label_by"') and sum(line.endswith('"person"') for line in text) == 1
