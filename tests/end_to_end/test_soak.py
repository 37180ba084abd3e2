"""`headrace verify soak` for half a minute on a stack of its own: it looks, counts everything, and judges nothing yet."""

import json

from headrace.config import Config
from tests.end_to_end.conftest import addresses, headrace, with_free_ports

SECONDS, RATE = 24, 200


def test_half_a_minute_is_looked_at_and_accounted_for(tmp_path):
    result = tmp_path / "result.json"
    ran = headrace("verify", "soak", "--minutes", str(SECONDS / 60), "--rate", str(RATE), "--seed", "7", "--data", str(tmp_path / "data"),
                   "--json", str(result), cwd=tmp_path, **addresses(with_free_ports(Config())))
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr
    told = json.loads(result.read_text())
    assert told["agree"] and told["flat"] and all(check["agree"] for check in told["checks"])
    found = {check["check"]: check["found"] for check in told["checks"]}
    assert found["samples, by cause"] == told["rows"] > 0 and told["interactions"] > 0.9 * RATE * SECONDS
    assert found["sum of the counts"] > 0 and told["dead_letters"] == {}
    assert len(told["looks"]) >= 2, told["looks_failed"]  # on a busy machine a look takes seconds
    last = told["looks"][-1]
    assert {"ps-0", "features", "flink-taskmanager", "kafka", "this command"} <= set(last["memory_mb"])
    assert last["memory_total_mb"] == sum(mb for name, mb in last["memory_mb"].items() if name != "this command") > 1000
    assert last["disk_mb"]["kafka"] > 0 and last["disk_mb"]["features"] > 0 and last["rows"]["users"] > 0
    assert all(row["flat"] is None and "shorter than" in row["why"] for row in told["flatness"])
    assert told["topic_bytes_an_interaction"]["enriched"] > 0
    assert "counted from outside" in ran.stdout and "not judged" in ran.stdout
