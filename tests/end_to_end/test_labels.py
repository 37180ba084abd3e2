"""Labels by people through the broker of a real stack."""

import json


def test_labels_go_in_the_last_word_holds_and_they_come_out(on_stack, tmp_path):
    for number, (labeller, value) in enumerate((("ann", 1), ("bob", 0), ("ann", 0))):
        file = tmp_path / f"{number}.csv"
        file.write_text(f"item_id,user_id,label\nfilm-1,,{value}\nfilm-1,u1,1\n")
        done = on_stack("labels", "import", str(file), "--labeller", labeller, "--target", "spam")
        assert done.returncode == 0 and "2 labels in topic labels" in done.stdout, done.stdout + done.stderr
    done = on_stack("labels", "export", str(tmp_path / "all.jsonl"), "--target", "spam")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [(row["user_id"], row["labeller"], row["label"]) for row in rows] == [
        (None, "ann", 0.0), (None, "bob", 0.0), ("u1", "ann", 1.0), ("u1", "bob", 1.0)]
    told = json.loads(on_stack("labels", "agreement", "--target", "spam", "--json").stdout)
    assert told[0]["twice"] == 2 and told[0]["alpha"] == 1.0 and told[0]["pairs"][0]["units"] == 2
    refused = on_stack("labels", "import", str(tmp_path / "absent.csv"))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
