"""What is not right is answered by a sentence with the field's name, never by a traceback."""

import pytest


@pytest.mark.parametrize(("path", "field"), [
    *((f"/recommend?user=u1&n={n}", "n") for n in ("0", "-1", "1000000000", "1e9", "ten", "", "1.5", "nan", "21")),
    *((f"/recall?user=u1&k={k}", "k") for k in ("0", "-1", "1001", "1e9", "ten", "9" * 400)),
    *((f"/similar?item=i1&k={k}", "k") for k in ("0", "ten")),
    ("/recommend?n=3", "user"), ("/recommend?user=", "user"), (f"/recommend?user={'x' * 257}", "user"),
    (f"/recommend?user={'%C3%A9' * 200}", "user"), (f"/recommend?user=u1&scene={'x' * 65}", "scene"),
    ("/recommend?user=u1&context=hour", "context"), ("/recommend?user=u1&context=user.age=7", "context"),
    (f"/recommend?user=u1&{'&'.join(['context=a=b'] * 65)}", "context"),
    ("/recommend?user=u1&explain=maybe", "explain"), ("/recall", "user"), ("/similar", "item"),
])
def test_bad_query(world, path, field):
    refused(world.http.get(path), field)


@pytest.mark.parametrize(("path", "body", "field"), [
    ("/recall", '{"users": ["u1"], "k": 0}', "k"), ("/recall", '{"users": ["u1"], "k": "ten"}', "k"),
    ("/recall", '{"vectors": [[1, 2]], "k": 3}', "vectors"), ("/recall", '{"vectors": [[NaN, 0, 0]], "k": 3}', "vectors"),
    ("/recall", '{"vectors": [[1e999, 0, 0]]}', "vectors"), ("/recall", '{"vectors": [[1, 2, 3], [1, 2]]}', "vectors"),
    ("/recall", '{"vectors": [[]]}', "vectors"), ("/recall", '{"vectors": []}', "vectors"), ("/recall", '{"vectors": [["a"]]}', "vectors"),
    ("/recall", '{"k": 3}', "users"), ("/recall", '{"users": ["u1"], "vectors": [[1, 2, 3]]}', "users"),
    ("/recall", '{"users": [""]}', "users"),
    ("/recall", '{"user": ["u1"]}', "user"), ("/recall", "{", "body"), ("/recall", "", "body"), ("/recall", "[]", "body"),
    ("/score", '{"user": "u1", "items": []}', "items"), ("/score", '{"items": ["i1"]}', "user"),
    ("/score", '{"user": "u1", "items": [""]}', "items"),
    ("/score", '{"user": "u1", "items": ["i1"], "ts_ms": 1700000000}', "ts_ms"),
    ("/score", '{"user": "u1", "items": ["i1"], "ts_ms": "now"}', "ts_ms"), ("/score", '{"user": "\\ud800", "items": ["i1"]}', "user"),
    ("/clock", '{"mode": "log"}', "ts_ms"), ("/clock", '{"mode": "later", "ts_ms": 1700000000000}', "mode"), ("/clock", "{}", "mode"),
    ("/events", "{", "body"), ("/events", "[" + ",".join(["{}"] * 1001) + "]", "body"),
])
def test_bad_body(world, path, body, field):
    refused(world.http.post(path, content=body, headers={"content-type": "application/json"}), field)


def refused(answer, field):
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field, answer.json()
    assert answer.json()["error"] and answer.json()["next"] and "Traceback" not in answer.text


def test_unknown_routes_and_methods(world):
    assert world.http.get("/nothing").json()["error"] and world.http.get("/nothing").status_code == 404
    assert world.http.delete("/recommend").status_code == 405


def test_a_long_body_is_refused_said_or_not(world):
    answer = world.http.post("/events", content=b"x" * ((1 << 20) + 1))
    assert answer.status_code == 413 and answer.json()["field"] == "body"
    assert world.http.post("/events", content=(b"x" * 65536 for _ in range(20))).status_code == 413


@pytest.mark.parametrize("name", ["features", "replica", "ann"])
def test_a_service_that_is_down_is_503_with_what_to_do(world, name):
    world.stop(name)
    answer = world.http.get("/recommend?user=u1&n=3")
    assert answer.status_code == 503 and answer.json()["error"] and "headrace status" in answer.json()["next"]
    assert world.http.get("/ready").status_code == 503 and world.http.get("/healthz").status_code == 200
    assert "Traceback" not in answer.text and world.impressions == []


def test_a_defect_is_a_number_not_a_traceback(world):
    world.rows = None
    answer = world.http.get("/recommend?user=u1&n=3")
    assert answer.status_code == 502 and "Traceback" not in answer.text and answer.json()["next"]


def test_operations(world):
    assert world.http.get("/ready").json() == {"ready": True, "missing": ""}
    world.http.get("/recommend?user=u1&n=3")
    metrics = world.http.get("/metrics").text
    assert 'headrace_engine_request_seconds_count{route="/recommend",status="200"} 1.0' in metrics
    assert set(world.http.get("/openapi.json").json()["paths"]) == {
        "/recommend", "/recall", "/similar", "/score", "/features", "/events", "/clock", "/healthz", "/ready"}


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("body", [
    DEEP, '{"a":' * 100_000 + "1" + "}" * 100_000, f'{{"user_id": "u", "item_id": "i", "action": "click", "context": {DEEP}}}',
    '{"user_id": "u", "item_id": "i", "action": "click", "value": 1e999}', "1e999", '"\\ud800"', '{"\\ud800": 1}', "[1e999, null, 3]",
    '{"user_id": "\\ud800", "item_id": "i", "action": "click"}', '{"user_id": {"$ne": 1}, "item_id": "i", "action": "click"}',
    "\x00", "NaN", '{"user_id": "u", "item_id": "i", "action": "click", "ts_ms": 1e999}', "9" * 5000, "\ufeff{}",
], ids=lambda body: f"{body[:24]!r} {len(body)}")
@pytest.mark.parametrize("path", ["/events", "/score", "/recall", "/clock"])
def test_what_breaks_parsers_is_a_json_error(world, path, body):
    answer = world.http.post(path, content=body.encode("utf-8", "surrogatepass"), headers={"content-type": "application/json"})
    told = answer.json()
    assert answer.status_code in (400, 422) or (path == "/events" and answer.status_code == 207), answer.text[:300]
    assert answer.status_code != 400 or "body" in told["next"]
    assert "Traceback" not in answer.text and ("error" in told or told["refused"] == len(told["verdicts"]))
    assert not world.sent
