"""Labels of people: what is read of files, whose word holds, and what becomes of samples."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.labels import files
from headrace.labels.label import Label, LabelError, Unit, label_of, newest, order, verdicts
from headrace.labels.over import over

NOW = 1_790_000_000_000
ROW = {"item_id": "i", "target": "spam", "label": 1, "labeller": "ann"}
UNITS = st.builds(Unit, st.sampled_from("ij"), st.sampled_from([None, "u"]), st.just("spam"))
LABELS = st.builds(Label, UNITS, st.sampled_from([0.0, 1.0]), st.sampled_from(["ann", "bob", "cat"]), st.integers(1, 9))


def label(item="i", value=1.0, labeller="ann", user=None, ts_ms=NOW, target="spam"):
    return Label(Unit(item, user, target), value, labeller, ts_ms)


@pytest.mark.parametrize(("change", "said"), [
    ({"item_id": ""}, "item_id is missing"), ({"labeller": None}, "labeller is missing.* or say --labeller"),
    ({"target": None}, "target is missing.* or say --target"), ({"target": "a b"}, "target is 'a b'"), ({"item_id": 7}, "item_id is '7'"),
    ({"item_id": "i" * 1025}, "at most 1024 bytes"), ({"user_id": 7}, "user_id is '7'"), ({"label": None}, "label is None"),
    ({"label": "yes"}, "label is 'yes'"), ({"label": "nan"}, "finite"), ({"label": [1]}, "finite"), ({"ts_ms": NOW + 10**9}, "future"),
    ({"ts_ms": -1}, "1970"), ({"ts_ms": "today"}, "ts_ms is 'today'"), ({"lable": 1}, "no column 'lable'; a label has item_id")])
def test_what_is_wrong_is_said(change, said):
    with pytest.raises(LabelError, match=said):
        label_of({**ROW, **change}, NOW)


def test_what_a_row_does_not_say_the_command_does():
    assert label_of({"item_id": "i", "label": "0.5", "user_id": "", "ts_ms": ""}, NOW, "spam", "bob") == label(value=0.5, labeller="bob")
    assert label_of({**ROW, "ts_ms": str(NOW - 5)}, NOW, "click", "bob") == label(ts_ms=NOW - 5)


@given(st.lists(LABELS, min_size=1, max_size=12), st.sampled_from(files.KINDS))
def test_what_is_written_is_read(tmp_path_factory, labels, kind):
    path = tmp_path_factory.mktemp("labels") / f"some{kind}"
    assert files.write(path, labels) == len(labels)
    assert files.read(path, NOW) == labels
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_is_taken_whole_or_not_and_the_line_is_named(tmp_path):
    for name, text, said in (
            ("a.csv", "item_id,label\ni,1\nj,x\n", r"a.csv, line 3: label is 'x'.*nothing was taken"),
            ("b.csv", "item_id,label\ni,1,2\n", "b.csv, line 2: more cells"), ("c.csv", "item_id,label\n", "holds no label"),
            ("d.jsonl", '{"item_id": "i", "label": 1}\n\n[1]\n', "d.jsonl, line 3: no JSON object"), ("e.jsonl", "{", "line 1: no JSON"),
            ("f.csv", "thing,label\ni,1\n", "line 2: there is no column 'thing'"), ("g.txt", "i", "cannot tell what it is"),
            ("h.parquet", "no", "no Parquet file")):
        (tmp_path / name).write_text(text)
        with pytest.raises(LabelError, match=said):
            files.read(tmp_path / name, NOW, "spam", "ann")
    (tmp_path / "bytes.csv").write_bytes(b"item_id,label\n\xff,1\n")
    with pytest.raises(LabelError, match="UTF-8"):
        files.read(tmp_path / "bytes.csv", NOW, "spam", "ann")
    with pytest.raises(LabelError, match="cannot tell what to write"):
        files.write(tmp_path / "x.txt", [label()])


@given(st.lists(LABELS, max_size=20))
def test_the_last_word_of_each_holds(labels):
    held = {}
    for one in labels:
        key = one.unit, one.labeller
        if key not in held or one.ts_ms >= held[key].ts_ms:
            held[key] = one
    assert sorted(newest(labels), key=order) == sorted(held.values(), key=order)


def test_the_median_speaks_and_a_tie_does_not():
    said = [label(value=value, labeller=name) for name, value in (("a", 0.0), ("b", 1.0), ("c", 1.0))]
    assert verdicts(said) == {Unit("i", None, "spam"): 1.0}
    assert verdicts(said[:2]) == {} and verdicts([]) == {}


def test_a_label_of_the_user_s_sample_is_before_that_of_the_item_and_others_stay():
    samples = pa.table({"item_id": ["i", "i", "j", "i"], "user_id": ["u", "v", "u", "u"], "target": ["spam", "spam", "spam", "click"],
                        "label": [0.0, 0.0, 0.25, 0.0], "kept": [1, 2, 3, 4]})
    made = over(samples, {Unit("i", None, "spam"): 1.0, Unit("i", "u", "spam"): 0.5})
    assert made["label"].to_pylist() == [0.5, 1.0, 0.25, 0.0] and made["label_by"].to_pylist() == ["person", "person", "action", "action"]
    assert made["kept"].to_pylist() == [1, 2, 3, 4] and made.column_names == [*samples.column_names, "label_by"]


def test_a_record_is_of_the_schema():
    from headrace.schemas.codec import Codec
    from headrace.schemas.registry_store import SchemaStore

    codec = Codec("labels", SchemaStore())
    assert codec.decode(codec.encode(label(user="u").record())) == label(user="u").record()
    assert json.loads(json.dumps(label().record()))["user_id"] is None
