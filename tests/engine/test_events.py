import pytest

from headrace.engine.events import Events
from tests.engine.world import WALL_MS

GOOD = {"user_id": "u1", "item_id": "i1", "action": "click"}


def test_one_event_is_filled_in_and_sent(world):
    answer = world.http.post("/events", json=GOOD)
    assert answer.status_code == 200 and answer.json()["accepted"] == 1
    (key, record), = world.sent
    assert key == b"u1" and record["ts_ms"] == WALL_MS and record["event_id"] == answer.json()["verdicts"][0]["event_id"] != ""
    assert (record["value"], record["context"], record["exposure"]) == (1.0, {}, None)


def test_good_events_are_sent_even_when_others_are_refused(world):
    events = [GOOD, {**GOOD, "action": ""}, {**GOOD, "event_id": "e3", "ts_ms": WALL_MS - 5, "value": 3, "context": {"hour": "7"}}, 7, {}]
    answer = world.http.post("/events", json=events)
    assert answer.status_code == 207 and (answer.json()["accepted"], answer.json()["refused"]) == (2, 3)
    assert [verdict["accepted"] for verdict in answer.json()["verdicts"]] == [True, False, True, False, False]
    assert all(verdict["reason"] and verdict["detail"] for verdict in answer.json()["verdicts"] if not verdict["accepted"])
    assert len(world.sent) == 2 and world.sent[1][1]["event_id"] == "e3"


@pytest.mark.parametrize(("change", "reason"), [
    ({"user_id": ""}, "empty_id"), ({"user_id": "x" * 300}, "long_id"), ({"item_id": 5}, "bad_type"), ({"action": "a" * 65}, "bad_action"),
    ({"action": "heartbeat"}, "bad_action"), ({"ts_ms": 1_700_000_000}, "bad_ts"), ({"ts_ms": "now"}, "bad_ts"),
    ({"ts_ms": True}, "bad_ts"),
    ({"ts_ms": 1e12}, "bad_ts"), ({"value": "1"}, "bad_value"), ({"value": 10**400}, "bad_value"), ({"context": {"a": 1}}, "bad_context"),
    ({"context": {str(n): "" for n in range(65)}}, "bad_context"), ({"position": -1}, "bad_position"), ({"event_id": ""}, "empty_id"),
    ({"request_id": "x" * 300}, "long_id"), ({"itemid": "i1"}, "unknown_field"), ({"exposure": {}}, "unknown_field"),
    ({"context": {"a": "x" * 900, "b": "x" * 900, "c": "x" * 900}}, "oversized"), ({"user_id": "\ud800"}, "bad_type"),
])
def test_what_is_refused_has_a_reason(world, change, reason):
    import json

    answer = world.http.post("/events", content=json.dumps([{**GOOD, **change}]), headers={"content-type": "application/json"})
    assert answer.status_code == 422 and answer.json()["verdicts"][0]["reason"] == reason, answer.text
    assert answer.json()["error"] and answer.json()["next"]
    assert world.sent == [] and world.clock.mode is None


def test_nan_is_refused(world):
    answer = world.http.post("/events", content=b'{"user_id": "u", "item_id": "i", "action": "click", "value": NaN}',
                             headers={"content-type": "application/json"})
    assert answer.json()["verdicts"][0]["reason"] == "bad_value"


def test_what_the_broker_does_not_take_is_not_accepted(world):
    world.undelivered["i2"] = "the broker is away"
    verdicts = world.http.post("/events", json=[GOOD, {**GOOD, "item_id": "i2"}]).json()["verdicts"]
    assert verdicts[0]["accepted"] and verdicts[1]["reason"] == "undelivered"
    alone = world.http.post("/events", json={**GOOD, "item_id": "i2"})
    assert alone.status_code == 207 and alone.json()["refused"] == 1, "nothing is wrong with the event: it may be sent again"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_body_that_is_not_said_to_be_json_is_refused_with_the_header_to_add(world, kind):
    answer = world.http.post("/events", content=b'{"user_id": "u1", "item_id": "i1", "action": "click"}', headers={"content-type": kind})
    assert answer.status_code == 415 and "Content-Type: application/json" in answer.json()["error"] and not world.sent


def test_events_of_today_on_the_clock_of_an_old_log_are_noted(world):
    world.clock.set("log", WALL_MS - 30 * 86_400_000)
    answer = world.http.post("/events", json=[GOOD, {**GOOD, "ts_ms": WALL_MS}, {**GOOD, "ts_ms": WALL_MS}]).json()
    assert answer["accepted"] == 3 and answer["note"].startswith("2 of these events lie ahead") and "headrace clock now" in answer["note"]
    near = world.http.post("/events", json={**GOOD, "ts_ms": world.clock.peek() + 120_000}).json()
    assert near["note"].startswith("1 of"), "two minutes ahead of the log wait too"
    world.clock.leave_log()
    assert "note" not in world.http.post("/events", json={**GOOD, "ts_ms": WALL_MS}).json()


def test_an_action_that_nothing_counts_is_taken_and_noted_with_the_nearest_that_counts(world):
    answer = world.http.post("/events", json=[GOOD, {**GOOD, "action": "clik"}]).json()
    assert answer["accepted"] == 2 and "'clik', the nearest that counts is 'click'" in answer["note"]
    assert "are impression, click, like" in world.http.post("/events", json={**GOOD, "action": "xyzzy"}).json()["note"]
    assert "note" not in world.http.post("/events", json=[{**GOOD, "action": action} for action in ("hide", "dwell", "impression")]).json()
    refused = world.http.post("/events", json=[GOOD, {**GOOD, "action": "clik", "user_id": ""}]).json()
    assert refused["refused"] == 1 and "note" not in refused, "the verdict tells what is wrong"


def test_the_target_counts_whatever_its_name(world):
    events = Events(world.clock, lambda records: [""] * len(records), learnt=("buy",))
    assert events.note([{**GOOD, "action": "buy"}]) == "" and "'bye'" in events.note([{**GOOD, "action": "bye"}])


def test_an_empty_list(world):
    assert world.http.post("/events", json=[]).json() == {"accepted": 0, "refused": 0, "verdicts": []}
