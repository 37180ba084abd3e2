"""The bench of training to serving at its quick size: nothing is lost, and the replicas end as the shards, whatever it took."""

from __future__ import annotations

import json

from tests.end_to_end.conftest import headrace


def test_nothing_is_lost_and_replicas_end_as_the_shards(tmp_path):
    done = headrace("bench", "ps.sync", "--quick", "--json", str(tmp_path / "out.json"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row["value"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert rows["lost"] == rows["differing"] == 0
    assert {"half.p50", "half.p99", "full.p50", "full.p99", "converged_s"} <= set(rows) and rows["away.pushed"] > 0
