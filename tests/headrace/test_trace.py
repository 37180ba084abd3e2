"""`headrace trace` over topics made by hand: every hop, each way in which one can be missing, and what is bounded instead of read."""

from dataclasses import replace

import numpy as np
import pytest

from headrace.commands.trace import how_of, told, wanted
from headrace.config import Config, ConfigError, Model
from headrace.schemas.hashing import feature_key
from headrace.schemas.targets import Target
from headrace.trace import exposure_of, trace
from headrace.trace_hops import How, Seen, UnknownEvent
from headrace.trace_topics import avro_text

SOURCE, T0 = 77, 1_700_000_000_000
HOW = How("fm", "fm", "click", "wait", 1000, 200, 50, 60_000)
EAGER = How("fm", "fm", "click", "eager", 1000, 200, 50, 60_000)


class Lists:
    """Topics as lists, one partition each; offsets are places in the list. `learnt`: what every shard says of a cause."""

    source = SOURCE

    def __init__(self, now_ms=T0 + 10_000, learnt=(1, 1)):
        self.held, self._now_ms, self.learnt = {}, now_ms, list(learnt)

    def put(self, where, at_ms, key="", **record):
        rows = self.held.setdefault(where, [])
        rows.append((key, Seen(where, 0, len(rows), T0 + at_ms, record)))
        return rows[-1][1]

    def now_ms(self):
        return self._now_ms

    def at(self, place):
        rows = self.held.get("interactions", [])
        if place[0] != 0 or place[1] >= len(rows):
            raise UnknownEvent(f"interactions has no record {place[0]}:{place[1]}")
        return rows[place[1]][1]

    def named(self, event_id, start_ms, stop_ms):
        return [one for one in self.scan("interactions", start_ms, stop_ms) if one.record["event_id"] == event_id]

    def scan(self, topic, start_ms, stop_ms, key=None):
        return (one for k, one in self.held.get(topic, []) if start_ms <= one.at_ms < stop_ms and key in (None, k))

    def known(self, model, target, place):
        return self.learnt

    def slot(self, key):
        return 5, 0

    # A stack by hand: what the processes would write.

    def arrive(self, at_ms, event_id, action="impression", user="u", item="i", ts_ms=None, request=None):
        return self.put("interactions", at_ms, user, event_id=event_id, action=action, user_id=user, item_id=item, request_id=request,
                        ts_ms=T0 + (at_ms - 5 if ts_ms is None else ts_ms), exposure=None)

    def enrich(self, at_ms, seen):
        return self.put("enriched", at_ms, seen.record["user_id"], **seen.record, source=SOURCE, partition=0, offset=seen.offset)

    def sample(self, at_ms, seen, action=None):
        return self.put("samples", at_ms, seen.record["user_id"], **seen.record, source=SOURCE, partition=0, offset=seen.offset,
                        target="click", label=float(action is not None), action_ts_ms=action and action.record["ts_ms"])

    def touch(self, at_ms, seen, space, topic="touched.fm"):
        one = seen.record[f"{space}_id"]
        return self.put(topic, at_ms, one, source=SOURCE, partition=0, offset=seen.offset, space=space, id=one,
                        ts_ms=seen.record["ts_ms"])

    def block(self, at_ms, *keys, newest=None, topic="weights.fm"):
        named = newest and {"source": SOURCE, "partition": 0, "offset": newest.offset, "ts_ms": newest.record["ts_ms"]}
        return self.put(topic, at_ms, "5", keys=np.array(keys, "<u8").tobytes(), newest=named)

    def vector(self, at_ms, seen, space):
        one = seen.record[f"{space}_id"]
        return self.put("vectors", at_ms, f"{space}:{one}", source=SOURCE, partition=0, offset=seen.offset)

    def refuse(self, at_ms, seen, reason, topic="interactions", **more):
        return self.put("dead-letters", at_ms, topic=topic, **{"partition": 0, "offset": seen.offset, "reason": reason, "detail": "why",
                                                               **more})


USER, ITEM = feature_key("user_id", "u"), feature_key("item_id", "i")


def whole(topics, event_id="e", action=None):
    """An event through everything; its arrival."""
    seen = topics.arrive(5, event_id)
    topics.enrich(30, seen)
    clicked = None
    if action:
        clicked = topics.arrive(50, action, "click")
        topics.enrich(70, clicked)
    topics.sample(1300, seen, clicked)
    topics.block(1380, USER, ITEM, newest=seen)
    for n, space in enumerate(("user", "item")):
        topics.touch(1400 + n, seen, space)
        topics.vector(1450 + n, seen, space)
    return seen


def hops(found):
    """topic and of -> (ms since T0, took ms, note)."""
    return {(hop.topic, hop.of): (hop.seen and hop.seen.at_ms - T0, hop.took_ms, hop.note) for hop in found.hops}


def test_every_hop_in_the_order_of_time():
    topics = Lists()
    whole(topics)
    found = trace(topics, "e", HOW)
    assert found.whole and found.cause == (0, 0) and (found.since, found.base_ms) == ("event", T0)
    assert [(hop.topic, hop.of.split()[0], hop.seen.at_ms - T0, hop.took_ms) for hop in found.hops] == [
        ("interactions", "impression", 5, None), ("enriched", "impression", 30, 25), ("samples", "target", 1300, 1270),
        ("weights.fm", "user", 1380, 80), ("weights.fm", "item", 1380, 80), ("touched.fm", "user", 1400, 100),
        ("touched.fm", "item", 1401, 101), ("vectors", "user", 1450, 50), ("vectors", "item", 1451, 50)]
    assert hops(found)["samples", "target click"][2] == "label 0" and not found.said
    assert trace(topics, (0, 0), HOW).hops == found.hops


def test_json_has_every_time_and_what_an_arrival_took():
    topics = Lists()
    whole(topics)
    body = told(trace(topics, "e", HOW), HOW)
    first, last = body["hops"][0], body["hops"][-1]
    assert (body["event_id"], body["cause"], body["whole"]) == ("e", {"partition": 0, "offset": 0}, True)
    assert (first["since_ms"], first["took_ms"], first["after"]) == (5, 5, None)
    assert (last["topic"], last["since_ms"], last["took_ms"], last["after"]) == ("vectors", 1451, 50, "touched.fm (item i)")


def test_an_action_leads_to_its_exposure_and_both_are_shown():
    topics = Lists()
    topics.enrich(3, topics.arrive(2, "older"))
    seen = whole(topics, action="c")
    found = trace(topics, "c", HOW)
    assert found.whole and found.event["event_id"] == "e" and found.cause == seen.cause
    assert found.said == ["0:2 is a click, attributed to the impression 0:1"]
    assert hops(found)["interactions", "click"][0] == 50 and hops(found)["enriched", "click"][:2] == (70, 20)
    assert hops(found)["samples", "target click"] == (1300, 1270, "label 1")  # under wait it waits for the window of its exposure
    assert hops(trace(topics, "e", HOW)) == hops(found)


def test_under_eager_a_positive_follows_its_action():
    topics = Lists()
    seen = topics.arrive(5, "e")
    topics.enrich(30, seen)
    click = topics.arrive(200, "c", "click")
    topics.enrich(220, click)
    topics.sample(260, seen, click)
    for wanted_ in ("e", "c"):
        found = trace(topics, wanted_, EAGER)
        assert hops(found)["samples", "target click"] == (260, 40, "label 1")
        assert next(hop for hop in found.hops if hop.topic == "samples").after.of == "click"


def test_a_second_click_is_shown_beside_the_one_that_counted():
    topics = Lists()
    seen = whole(topics, action="c")
    again = topics.arrive(90, "c2", "click", ts_ms=90)
    topics.enrich(95, again)
    found = trace(topics, "c2", HOW)
    assert found.cause == seen.cause and "another came before it" in found.said[1]
    assert [hop.seen.at_ms - T0 for hop in found.hops if hop.of == "click"] == [50, 70, 90, 95]


def test_a_click_that_came_too_late_for_its_sample():
    topics = Lists()
    whole(topics)
    late = topics.arrive(1350, "c", "click", ts_ms=900)
    topics.enrich(1360, late)
    assert "the sample had left, or it came late" in trace(topics, "c", HOW).said[1]


@pytest.mark.parametrize("stage, missing", [
    (0, [("enriched", "impression")]),
    (1, [("samples", "target click"), ("touched.fm", "user u"), ("vectors", "user u")]),
])
def test_what_has_not_come_is_said_to_be_not_yet(stage, missing):
    topics = Lists(now_ms=T0 + 500)
    seen = topics.arrive(5, "e")
    if stage:
        topics.enrich(30, seen)
    found = trace(topics, "e", HOW)
    assert not found.whole
    for hop in missing:
        assert hops(found)[hop] == (None, None, "not yet")


def test_a_search_that_gave_up_says_how_to_widen():
    topics = Lists(now_ms=T0 + 1_000_000)
    seen = topics.arrive(5, "e")
    assert "not within 60 s of the hop before; --within S" in hops(trace(topics, (0, 0), HOW))["enriched", "impression"][2]
    topics.enrich(70_000, seen)
    found = hops(trace(topics, (0, 0), HOW))["enriched", "impression"]
    assert found[0] is None and "--within S" in found[2]
    with pytest.raises(UnknownEvent, match=r"within the last 60 s; --within S looks further back"):
        trace(topics, "e", HOW)


def test_unknown_events():
    topics = Lists()
    with pytest.raises(UnknownEvent, match="no event 'nobody'"):
        trace(topics, "nobody", HOW)
    with pytest.raises(UnknownEvent, match="no record 0:9"):
        trace(topics, (0, 9), HOW)
    topics.arrive(5, "r1:0")
    with pytest.raises(UnknownEvent, match=r"'r1' is a request_id: .* under r1:0, r1:1"):
        trace(topics, "r1", HOW)


def test_dead_letters_are_told_at_the_hop_that_refused():
    topics = Lists()
    refused = topics.arrive(5, "refused")
    topics.refuse(20, refused, "bad_ts")
    found = trace(topics, "refused", HOW)
    assert [hop.topic for hop in found.hops] == ["interactions", "enriched"] and not found.whole
    assert hops(found)["enriched", "impression"][2] == "dead letter bad_ts: why; send milliseconds since 1970 UTC"
    late = topics.arrive(25, "late")
    topics.enrich(30, late)
    topics.refuse(35, late, "late")
    found = trace(topics, "late", HOW)
    assert hops(found)["samples", "target click"][2].startswith("dead letter late: why; mend") and found.hops[-1].topic == "samples"
    topics.refuse(90, refused, "resent", detail="sent again as partition 0, offset 7")
    assert hops(trace(topics, "refused", HOW))["enriched", "impression"][2].endswith("; sent again as partition 0, offset 7")


def test_a_letter_of_a_copy_does_not_hide_what_was_learnt():
    topics = Lists()
    topics.refuse(2000, whole(topics), "late")
    assert trace(topics, "e", HOW).whole


def test_a_sample_refused_by_training():
    topics = Lists(learnt=(0, 1))
    seen = topics.arrive(5, "e")
    topics.enrich(30, seen)
    topics.sample(1300, seen)
    assert hops(trace(topics, "e", HOW))["touched.fm", "user u"][2] == "not yet applied by shard 0"
    topics.refuse(1350, seen, "bad_sample")
    found = trace(topics, "e", HOW)
    assert hops(found)["touched.fm", "user u"][2].startswith("dead letter bad_sample") and found.hops[-1].topic == "touched.fm"


def test_an_action_without_an_exposure():
    topics = Lists()
    click = topics.arrive(5, "c", "click")
    topics.enrich(30, click)
    found = hops(trace(topics, "c", HOW))
    assert found["samples", "its exposure"][2] == "no impression of item i in the 1000 ms before it"
    topics.refuse(60, click, "no_exposure")
    assert hops(trace(topics, "c", HOW))["samples", "its exposure"][2].startswith("dead letter no_exposure")


def test_a_retry_names_the_cause_under_which_it_was_folded():
    topics = Lists()
    whole(topics)
    topics.arrive(3000, "e")
    by_place = trace(topics, (0, 1), HOW)
    assert hops(by_place)["enriched", "impression"][2].startswith("a retry: its event_id was folded as 0:0")
    by_name = trace(topics, "e", HOW)
    assert by_name.whole and by_name.cause == (0, 0) and by_name.said[0].startswith("0:1 has the same event_id: a retry")


def test_heartbeats_and_unreadable_arrivals():
    topics = Lists()
    beat = topics.arrive(5, "heartbeat", "heartbeat", user="", item="")
    topics.put("enriched", 8, "heartbeat-0", **beat.record, source=SOURCE, partition=0, offset=0)
    found = trace(topics, (0, 0), HOW)
    assert found.whole and "no sample" in found.said[0]
    broken = topics.put("interactions", 9)
    topics.refuse(12, broken, "truncated")
    found = trace(topics, (0, 1), HOW)
    assert hops(found)["enriched", "an event that cannot be read"][2].startswith("dead letter truncated")
    assert told(found, HOW)["event_id"] is None and found.since == "arrival"


def test_a_log_of_another_time_is_counted_from_its_arrival():
    topics = Lists()
    topics.enrich(30, topics.arrive(5, "e", ts_ms=-86_400_000))
    found = trace(topics, "e", HOW)
    assert (found.since, found.base_ms) == ("arrival", T0 + 5)
    assert told(found, HOW)["hops"][0]["took_ms"] is None


def test_touches_said_with_another_cause_of_the_push():
    """Two samples of a user and an item in one push: the first says both; the user's next sample is of a later push."""
    topics = Lists()
    first, ours, later = (topics.arrive(at, name) for at, name in ((5, "first"), (6, "ours"), (7, "later")))
    for at_ms, seen in ((30, first), (31, ours), (32, later)):
        topics.enrich(at_ms, seen)
    for at_ms, seen in ((1300, first), (1301, ours), (1302, later)):
        topics.sample(at_ms, seen)
    said = {space: topics.touch(1400, first, space) for space in ("user", "item")}
    for space in said:
        topics.touch(1500, later, space)
    found = trace(topics, "ours", HOW)
    touches = [hop for hop in found.hops if hop.topic == "touched.fm"]
    assert [hop.seen for hop in touches] == list(said.values())
    assert all(hop.note == "said with 0:0, learnt in the same push" for hop in touches)


def test_blocks_of_weights():
    """Not one that cannot hold it; the one that names the cause; else the first after the touch, told as a bound when another was near."""
    def block_of(*blocks):
        topics = Lists()
        seen = topics.arrive(5, "e", ts_ms=0)
        topics.enrich(30, seen)
        topics.sample(1300, seen)
        for space in ("user", "item"):
            topics.touch(1400, seen, space)
        old, new = topics.arrive(1, "old", ts_ms=-5), topics.arrive(2, "new", ts_ms=3)
        for at_ms, key, newest in blocks:
            topics.block(at_ms, key, newest={"old": old, "new": new, "ours": seen, None: None}[newest])
        at_ms, _, note = hops(trace(topics, "e", HOW))["weights.fm", "user u"]
        return at_ms, note

    assert block_of((1350, USER, "old"), (1380, ITEM, "new"), (1390, USER, "new")) == (1390, "")
    assert block_of((1350, USER, "new"), (1395, USER, "ours"), (1410, USER, "new")) == (1395, "")
    assert block_of((1390, USER, None), (9000, USER, "new")) == (1390, "")
    assert block_of((1390, USER, "new"), (1430, USER, "new")) == (1430, "at the latest: 0:0, 40 ms before, may hold it")
    assert block_of((1250, USER, "new")) == (None, "not yet")


def test_a_vector_of_another_touch_is_taken_only_when_ours_does_not_come():
    topics = Lists()
    seen = topics.arrive(5, "e")
    topics.enrich(30, seen)
    topics.sample(1300, seen)
    other = topics.arrive(6, "other")
    for space in ("user", "item"):
        topics.touch(1400, seen, space)
        topics.vector(1401, other, space)
    topics.vector(1440, seen, "user")
    found = hops(trace(topics, "e", HOW))
    assert (found["vectors", "user u"][0], found["vectors", "item i"][0]) == (1440, 1401)


def test_a_touch_that_was_refused():
    topics = Lists()
    seen = topics.arrive(5, "e")
    topics.enrich(30, seen)
    topics.sample(1300, seen)
    touch = topics.touch(1400, seen, "user")
    topics.refuse(1500, seen, "poison_touch", topic="touched.fm", partition=-1, offset=-1,
                  detail=f"user 'u' of {touch.record['ts_ms']}: it died")
    assert hops(trace(topics, "e", HOW))["vectors", "user u"][2].startswith("dead letter poison_touch")


def test_another_model_has_no_vectors():
    topics = Lists()
    seen = whole(topics)
    for space in ("user", "item"):
        topics.touch(1410, seen, space, "touched.lr")
    topics.block(1412, USER, ITEM, newest=seen, topic="weights.lr")
    how = how_of(Config(models={"lr": Model(name="lr")}), "lr", 60)
    found = trace(topics, "e", how)
    assert found.whole and {hop.topic for hop in found.hops} == {"interactions", "enriched", "samples", "touched.lr", "weights.lr"}
    assert next(hop for hop in found.hops if hop.topic == "touched.lr").by == "train-lr job"
    with pytest.raises(ConfigError, match="trained are fm"):
        how_of(Config(), "lr", 60)


def test_exposures_of_an_action_as_each_strategy_finds_them():
    topics = Lists()
    seen = [topics.enrich(n, topics.arrive(n, str(n), item=item, ts_ms=ts_ms, request=request)) for n, (item, ts_ms, request) in enumerate(
        [("i", 0, "r1"), ("i", 400, "r2"), ("other", 500, "r2"), ("i", 300, "r2"), ("i", 2000, "r2")])]
    action = {"action": "click", "item_id": "i", "request_id": None, "ts_ms": T0 + 900}
    assert exposure_of(action, seen[:4], HOW) is seen[1] and exposure_of(action, seen[:4], EAGER) is seen[3]
    assert exposure_of(action, seen, HOW) is seen[1] and exposure_of(action, seen, EAGER) is None
    assert exposure_of({**action, "request_id": "r1"}, seen, HOW) is seen[0]
    assert exposure_of({**action, "ts_ms": T0 + 1401}, seen[:2], HOW) is None


def test_of_several_targets_each_action_has_its_window_and_the_sample_is_of_the_models():
    topics = Lists()
    seen = whole(topics)
    read, slow = topics.arrive(700, "d", "dwell", ts_ms=600), topics.arrive(1500, "l", "like", ts_ms=1400)
    for at, one in ((720, read), (1520, slow)):
        topics.put("enriched", at, "u", **one.record, source=SOURCE, partition=0, offset=one.offset, value=3.0)
    of = (Target("click", "click", 1000), Target("read", "dwell", 4000, 5.0), Target("like", "like", 1200))
    how = replace(HOW, target="read", window_ms=4000, targets=of)
    topics.put("samples", 1300, "u", **seen.record, source=SOURCE, partition=0, offset=seen.offset, target="read", label=0.0,
               action_ts_ms=None)
    found = trace(topics, "d", how)
    assert found.whole and hops(found)["samples", "target read"][2] == "label 0"
    assert found.said[1] == "that dwell did not make the sample positive: its value 3 is below at_least, 5"
    missed = trace(topics, "l", how)
    assert hops(missed)["samples", "its exposure"][2] == "no impression of item i in the 1200 ms before it"
    config = Config(samples={"also": {"read": {"action": "dwell", "window_ms": 4000}}}, models={"lr": Model(name="lr", target="read")})
    assert [(one.target, one.action) for one in (how_of(config, "fm", 60), how_of(config, "lr", 60))] == [
        ("click", "click"), ("read", "dwell")]
    assert how_of(config, None, 60).window_ms == 4000


def test_names_and_places():
    assert wanted("3:17") == (3, 17) and wanted("e:1x") == "e:1x" and wanted("00000000-12-i") == "00000000-12-i"
    assert avro_text("abc") == b"\x06abc" and avro_text("a" * 100)[:2] == b"\xc8\x01"
