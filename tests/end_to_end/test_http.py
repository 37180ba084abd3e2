"""The engine's routes as `curl` sees them, good and bad calls, and the health pages of every role."""

import json
import uuid

import pytest

from tests.end_to_end.outside import events, until
from tests.end_to_end.test_stack import status

JSON = {"content-type": "application/json"}
DIM = 9  # 8 factors and one


@pytest.fixture(scope="module")
def known(loop):
    """(a user, the ten items that the user clicked); their vectors are served."""
    user, items = f"http-{uuid.uuid4().hex[:8]}", [f"http-item-{n}" for n in range(10)]
    before = loop.applied()
    assert loop.post("/events", events(user, items, "impression", "click")).json()["accepted"] == 20
    loop.learnt(before, len(items))
    until(lambda: loop.get("/recall", user=user, k=10).json()["found"], "a vector of the user")
    until(lambda: all(loop.get("/similar", item=item).json()["found"] for item in items), "vectors of the items")
    return user, items


def test_one_event_and_a_batch_with_verdicts(loop):
    user, before = f"verdict-{uuid.uuid4().hex[:8]}", loop.applied()
    one = loop.post("/events", {"user_id": user, "item_id": "a", "action": "impression", "event_id": f"{user}-1"})
    assert (one.status_code, one.json()) == (200, {"accepted": 1, "refused": 0, "verdicts": [{"accepted": True, "event_id": f"{user}-1"}]})
    batch = loop.post("/events", [{"user_id": user, "item_id": "a", "action": "click"}, {"user_id": user, "action": "click"},
                                  {"user_id": user, "item_id": "a", "action": "click", "itemid": 1}, "text",
                                  {"user_id": "", "item_id": "a", "action": "click"},
                                  {"user_id": user, "item_id": "b", "action": "impression"}])
    body = batch.json()
    assert (batch.status_code, body["accepted"], body["refused"]) == (207, 2, 4)
    assert [verdict.get("reason") for verdict in body["verdicts"]] == [None, "missing_field", "unknown_field", "bad_type", "empty_id", None]
    assert all(verdict["event_id"] if verdict["accepted"] else verdict["detail"] for verdict in body["verdicts"])
    loop.learnt(before, 2)


def test_an_unknown_user_is_recommended_what_is_popular(loop, known):
    answer = loop.get("/recommend", user=f"nobody-{uuid.uuid4().hex}", n=3, preview=1)
    body = answer.json()
    assert (answer.status_code, body["fallback"], len(body["items"])) == (200, "popular", 3)


def test_a_known_user_is_recommended_what_was_not_seen_and_it_comes_back_as_samples(loop, known):
    user, seen = known
    before, start = loop.applied(), loop.offsets("interactions")
    body = loop.get("/recommend", user=user, n=3, scene="test", explain=1).json()
    assert body["fallback"] is None and 0 < len(body["items"]) <= 3
    assert not {row["item_id"] for row in body["items"]} & set(seen)
    assert all(0 < row["score"] < 1 and row["explain"]["slots"] for row in body["items"])
    assert body["weights"]["sequence"] > 0 and body["version"] == body["weights"]["sequence"]
    until(lambda: len(served(loop, start, body["request_id"])) == len(body["items"]), "the impressions in Kafka")
    for record in served(loop, start, body["request_id"]):
        row = body["items"][record["position"]]
        assert (record["item_id"], record["exposure"]["score"]) == (row["item_id"], pytest.approx(row["score"]))
        assert (record["exposure"]["model"], record["exposure"]["version"]) == (body["model"], body["version"])
    loop.learnt(before, len(body["items"]))


def served(loop, start, request_id):
    return [row.record for row in loop.read("interactions", start) if row.record["request_id"] == request_id]


def test_recall_and_similar(loop, known):
    user, items = known
    near = loop.get("/recall", user=user, k=5).json()
    assert near["found"] and len(near["items"]) == 5 and near["sequence"] > 0
    assert [row["score"] for row in near["items"]] == sorted((row["score"] for row in near["items"]), reverse=True)
    alike = loop.get("/similar", item=items[0], k=5).json()
    assert alike["found"] and items[0] not in {row["item_id"] for row in alike["items"]}

    def both():
        """The user alone, then among others."""
        many = loop.post("/recall", {"users": [user, "nobody-at-all"], "k": 5}).json()["results"]
        assert [one["found"] for one in many] == [True, False] and many[1]["items"] == []
        return loop.get("/recall", user=user, k=5).json()["items"], many[0]["items"]

    until(lambda: len({json.dumps(one) for one in both()}) == 1, "the newest vectors, and so equal answers")
    raw = loop.post("/recall", {"vectors": [[0.1] * DIM], "k": 5})
    assert raw.status_code == 200 and len(raw.json()["results"][0]["items"]) == 5
    assert loop.get("/similar", item="nothing-like-it").json()["found"] is False


def test_the_same_time_gives_the_same_scores(loop, known):
    user, items = known
    ts_ms = loop.get("/clock").json()["ts_ms"]
    until(loop.served, "the replica has folded all that was trained")
    answers = [loop.post("/score", {"user": user, "items": items, "ts_ms": ts_ms}).json()["items"] for _ in range(2)]
    assert answers[0] == answers[1] and [row["item_id"] for row in answers[0]] == items


@pytest.mark.parametrize("count", ["0", "-1", "1e9", "1000000000", "ten"])
def test_a_count_that_is_none(loop, count):
    for path, field in ((f"/recommend?user=u&n={count}", "n"), (f"/recall?user=u&k={count}", "k"), (f"/similar?item=i&k={count}", "k")):
        refused(loop.get(path), field)
    body = count if count != "ten" else '"ten"'
    refused(loop.http.post(loop.config.engine.url + "/recall", content=f'{{"users": ["u"], "k": {body}}}', headers=JSON), "k")


@pytest.mark.parametrize("vector", ["[1, 2, 3]", f"[{', '.join(['NaN'] * DIM)}]", f"[{', '.join(['1e999'] * DIM)}]", "[]", '["a"]'])
def test_a_vector_that_is_none(loop, known, vector):
    refused(loop.http.post(loop.config.engine.url + "/recall", content=f'{{"vectors": [{vector}], "k": 3}}', headers=JSON), "vectors")


def refused(answer, field):
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field and answer.json()["error"] and answer.json()["next"], answer.json()


def test_openapi_names_the_routes(loop):
    body = loop.get("/openapi.json").json()
    assert {"/recommend", "/recall", "/similar", "/score", "/events", "/clock", "/healthz", "/ready"} <= set(body["paths"])


def test_health_ready_and_metrics_of_every_role(loop):
    config = loop.config
    local = {"features": config.features.http_port, "ann": config.ann.http_port, "replica": config.replica.http_ports[0],
             **{f"ps-{index}": port for index, port in enumerate(config.ps.http_ports)}}
    pages = {name: f"http://127.0.0.1:{port}" for name, port in local.items()}
    pages |= {name: row["address"] for name, row in status(config).items() if name in ("engine", "registry")}
    assert set(pages) == {"features", "ann", "replica", "ps-0", "ps-1", "engine", "registry"}
    for name, page in pages.items():
        answers = {path: loop.http.get(page + path) for path in ("/healthz", "/ready", "/metrics")}
        assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(answers, 200), name
        assert json.loads(answers["/healthz"].text), name
        assert "# TYPE " in answers["/metrics"].text, name
