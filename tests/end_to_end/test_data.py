"""`headrace data` on the session's stack: what it lists is what lies there."""

from __future__ import annotations

import json
from pathlib import Path

from tests.end_to_end.outside import until
from tests.end_to_end.test_eager import renamed

MAPPING = Path(__file__).parents[2] / "examples" / "kuairand.toml"
ROWS = 300


def test_what_the_stack_holds(loop, on_stack, kuairand, tmp_path):
    before = sum(loop.offsets("samples").values())
    others = renamed(kuairand, tmp_path / "data.parquet", "data-")
    done = on_stack("replay", str(others), "--mapping", str(MAPPING), "--clock", "now", "--speed", "max", "--limit", str(ROWS), "--no-wait")
    assert done.returncode == 0, done.stderr
    until(lambda: sum(loop.offsets("samples").values()) >= before + ROWS, "the samples", 120)
    listed = on_stack("data", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    found = {one["name"]: one for one in json.loads(listed.stdout)["entries"]}
    samples = found["samples"]
    assert samples["records"] >= ROWS and samples["bytes"] > 0 and samples["retention"] == "7 days"
    assert samples["oldest_ms"] <= samples["newest_ms"] and samples["owner"] == ["job samples"]
    [train] = [one for one in samples["readers"] if one["group"] == "headrace-train-fm"]
    assert train["name"] == "job train" and (train["lag"] is None or train["lag"] >= 0)
    assert found["features/users"]["rows"] > 0 and found["ps/fm/weights"]["rows"] > 0 and found["vectors-index/item"]["rows"] > 0
    shown = on_stack("data", "list")
    assert shown.returncode == 0 and "features/users" in shown.stdout
    told = json.loads(on_stack("data", "describe", "samples", "--json").stdout)
    assert told["schema"]["subject"] == "samples-value" and "user_id" in [one["name"] for one in told["schema"]["fields"]]
    assert set(told["offsets"]) == {"0", "1", "2", "3"}
    wrong = on_stack("data", "describe", "sampels")
    assert wrong.returncode == 2 and "the nearest is 'samples'" in wrong.stderr and "Traceback" not in wrong.stderr
