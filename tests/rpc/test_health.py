"""/healthz, /ready and /metrics."""

import httpx

from headrace.rpc.health import Health


def test_ready_says_what_is_missing():
    missing = ["the log is being read"]
    health = Health(0, lambda: missing[0])
    url = f"http://127.0.0.1:{health.port}"
    assert httpx.get(f"{url}/healthz").status_code == 200
    answer = httpx.get(f"{url}/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "missing": "the log is being read"})
    missing[0] = ""
    assert httpx.get(f"{url}/ready").status_code == 200
    assert "python_info" in httpx.get(f"{url}/metrics").text
    assert httpx.get(f"{url}/other").status_code == 404
    health.close()
