"""`headrace verify loop` on a stack of its own: whatever is ended, what is counted from outside is what was sent."""

import json

from headrace.config import Config
from tests.end_to_end.conftest import addresses, headrace, with_free_ports

KILLS = 6


def test_six_kills_lose_and_double_nothing(kuairand, tmp_path):
    result = tmp_path / "result.json"
    ran = headrace("verify", "loop", "--kills", str(KILLS), "--seed", "3", "--rows", "2000", "--file", str(kuairand), "--mapping",
                   str(kuairand.parent / "mapping.toml"), "--data", str(tmp_path / "data"), "--json", str(result), cwd=tmp_path,
                   **addresses(with_free_ports(Config())))
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr
    told = json.loads(result.read_text())
    assert told["kills_done"] == KILLS == len(told["kills"]) == len({kill["process"] for kill in told["kills"]})
    assert all(kill["recovered_s"] is not None for kill in told["kills"])
    assert told["rows"] >= 2000 and told["agree"] and all(check["agree"] for check in told["checks"])
    found = {check["check"]: check["found"] for check in told["checks"]}
    assert found["samples, by cause"] == found["exposures compared"] == told["rows"]
    assert "6 kills" in ran.stdout
