"""`headrace verify ps` with a few kills, and with trainers that are wrong, which it must find out."""

import json

import pytest

from tests.end_to_end.conftest import headrace


def test_every_key_is_counted_once_at_both_members_whatever_was_killed(tmp_path):
    done = headrace("verify", "ps", "--kills", "8", "--seed", "2", "--data", str(tmp_path / "data"), "--json", str(tmp_path / "told.json"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["agree"] and told["kills_done"] == 8 == len({kill["process"] for kill in told["kills"]})
    assert told["rows"] > 5000


@pytest.mark.parametrize("control", ["forgets", "skips"])
def test_a_trainer_that_is_wrong_is_found_out(tmp_path, control):
    done = headrace("verify", "ps", "--kills", "3", "--control", control, "--data", str(tmp_path / "data"), "--json",
                    str(tmp_path / "told.json"))
    assert done.returncode == 1 and "expected" in done.stderr, done.stdout[-3000:] + done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    wrong = [one["check"] for one in told["checks"] if not one["agree"]]
    assert any(name.startswith("keys of shard") for name in wrong) and told["kills_done"] == 3
