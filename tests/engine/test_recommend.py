import numpy as np
import pytest

from headrace.features.layout import K
from headrace.schemas.codec import Codec, check_interaction
from headrace.schemas.hashing import feature_key
from tests.engine.world import WALL_MS


def test_recommends_unread_items_by_probability_and_writes_what_it_served(world):
    answer = world.http.get("/recommend?user=u1&n=5&scene=home").json()
    items = [row["item_id"] for row in answer["items"]]
    pool = [f"i{n}" for n in range(28, 8, -1)]  # the 20 nearest
    assert items == sorted(pool, key=lambda item: -world.probability("u1", item))[:5]
    assert [row["score"] for row in answer["items"]] == pytest.approx([world.probability("u1", item) for item in items], abs=1e-6)
    assert answer["fallback"] is None and (answer["model"], answer["version"], answer["features_sequence"]) == ("fm", 17, 41)
    assert len(world.impressions) == 5
    for position, (key, record) in enumerate(world.impressions):
        assert key == b"u1" and record["item_id"] == items[position] and record["position"] == position and record["ts_ms"] == WALL_MS
        assert record["request_id"] == answer["request_id"] and record["scene"] == "home"
        exposure = record["exposure"]
        keys = np.frombuffer(exposure["feature_keys"], np.uint64)
        assert keys.tolist() == [1, feature_key("user_id", "u1"), feature_key("item_id", items[position])]
        assert len(exposure["feature_values"]) == 12 and len(exposure["numbers"]) == 4 * K
        assert (exposure["model"], exposure["version"], exposure["arms"]) == ("fm", 17, [])
        check_interaction(record)
    assert len({record["event_id"] for _, record in world.impressions}) == 5


def test_impressions_fit_the_schema(world):
    class Registry:
        def register(self, subject, text):
            return 1

    world.http.get("/recommend?user=u1&n=2")
    assert all(Codec("interactions", Registry()).encode(record) for _, record in world.impressions)


def test_context_reaches_the_features_and_the_log(world):
    world.http.get("/recommend?user=u1&n=1&context=hour=7&context=device=tv")
    keys = [feature_key("device", "tv"), feature_key("hour", "7")]  # in order of names, as an interaction's are
    assert world.asked_context == [*keys, 0, 0] and world.impressions[0][1]["context"] == {"hour": "7", "device": "tv"}
    world.http.post("/score", json={"user": "u1", "items": ["i3"], "context": {"hour": "7"}})
    assert world.asked_context == [keys[1], 0, 0, 0]


def test_read_items_are_not_recommended(world):
    world.people[feature_key("user_id", "u1")] = [feature_key("item_id", f"i{n}") for n in range(2, 29)]
    items = [row["item_id"] for row in world.http.get("/recommend?user=u1&n=10").json()["items"]]
    assert set(items) == {"i0", "i1"}  # popular ones fill up, the read ones not


def test_an_empty_list_says_that_all_was_seen_and_how_many(world):
    world.people[feature_key("user_id", "u1")] = [feature_key("item_id", f"i{n}") for n in range(30)]
    answer = world.http.get("/recommend?user=u1&n=10").json()
    assert answer["items"] == [] and answer["reason"] == "all_seen" and answer["seen"] == 29  # i29 is neither near nor popular
    assert world.http.get("/recommend?user=u2&n=3").json()["seen"] == 0


def test_a_preview_leaves_no_trace(world):
    assert world.http.get("/recommend?user=u1&n=3&preview=1").json()["preview"] is True
    assert world.impressions == [] and world.clock.mode is None
    world.http.get("/recommend?user=u1&n=3")
    assert world.clock.mode == "now"


@pytest.mark.parametrize("user", ["u2", "stranger"])
def test_without_a_vector_popular_items_in_their_order(world, user):
    answer = world.http.get(f"/recommend?user={user}&n=3").json()
    assert answer["fallback"] == "popular" and [row["item_id"] for row in answer["items"]] == ["i5", "i0", "i7"]
    assert answer["items"][0]["score"] == pytest.approx(world.probability(user, "i5"), abs=1e-6) and len(world.impressions) == 3


def test_an_empty_index_falls_back_too_and_nothing_popular_is_an_empty_list(world):
    world.index.spaces.clear()
    assert world.http.get("/recommend?user=u1&n=2").json()["fallback"] == "popular"
    world.popular = []
    answer = world.http.get("/recommend?user=u1&n=2")
    assert answer.status_code == 200 and answer.json()["items"] == [] and answer.json()["fallback"] == "popular"
    assert (answer.json()["reason"], answer.json()["seen"]) == ("nothing_known", 0)


def test_explain_adds_up_to_the_score(world):
    answer = world.http.get("/recommend?user=u1&n=3&explain=1&preview=1").json()
    assert answer["weights"] == {"sequence": 17, "age_ms": 12, "newest": {"source": 7, "partition": 1, "offset": 30, "ts_ms": 1000}}
    for row in answer["items"]:
        slots = row["explain"]["slots"]
        assert [slot["slot"] for slot in slots] == ["bias", "user_id", "item_id"]
        logit = sum(slot["linear"] + slot["pairs"] for slot in slots)
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(row["score"], abs=1e-5)
        assert slots[2]["name"] == f"item_id={row['item_id']}" and slots[0]["name"] is None
        recall = row["explain"]["recall"]
        assert recall["source"] == "ann" and recall["position"] == 28 - int(row["item_id"][1:])


def test_recall_similar_score(world):
    recall = world.http.get("/recall?user=u1&k=3").json()
    assert [row["item_id"] for row in recall["items"]] == ["i28", "i27", "i26"] and recall["found"] and recall["items"][0]["score"] == 28
    assert world.http.get("/recall?user=u2&k=3").json()["found"] is False
    similar = world.http.get("/similar?item=i28&k=2").json()
    assert [row["item_id"] for row in similar["items"]] == ["i27", "i26"]
    assert world.http.get("/similar?item=i29&k=2").json() == {"item": "i29", "found": False, "items": [], "sequence": -1, "newest": None}
    both = world.http.post("/recall", json={"users": ["u1", "u2"], "k": 2}).json()["results"]
    assert [len(result["items"]) for result in both] == [2, 0]
    by_vector = world.http.post("/recall", json={"vectors": [[1, 0, 0], [-1, 0, 0]], "k": 1}).json()["results"]
    assert [result["items"][0]["item_id"] for result in by_vector] == ["i28", "i0"]
    score = world.http.post("/score", json={"user": "u1", "items": ["i3", "i0"], "ts_ms": 1_700_000_000_000}).json()
    assert [row["item_id"] for row in score["items"]] == ["i3", "i0"] and world.asked_ts_ms == {1_700_000_000_000}
    assert score["items"][0]["score"] == pytest.approx(world.probability("u1", "i3"), abs=1e-6)
    assert world.impressions == [] and world.clock.mode is None
