"""The events that features were folded of, as topics and logs have them."""

import json

from headrace import kafka
from headrace.config import Config
from headrace.feature_history import Folded, Topics, erasures
from headrace.lake.erasing import hash_of
from tests.features.test_backfilled import topics
from tests.features.test_groups import interactions

RECORDS = interactions(40, 1)


def test_events_come_in_the_order_in_which_they_were_folded_each_once_with_the_time_they_were_folded_at():
    sent, enriched = topics(RECORDS)
    enriched[7]["ts_ms"] += 5  # clamped
    beats = [{"folded": -1, "partition": 0, "offset": 100, "ts_ms": 0}]
    history = Folded(sent, [*reversed(enriched), *enriched, *beats])
    found = list(history.before(30))
    assert [event["event_id"] for event in found] == [record["event_id"] for record in RECORDS[:30]] and history.count(30) == 30
    assert found[7]["ts_ms"] == RECORDS[7]["ts_ms"] + 5
    assert [event["event_id"] for event in history.later(35)] == [record["event_id"] for record in RECORDS[35:]]
    assert history.later(40) == []


def test_later_events_end_at_the_first_that_is_not_there():
    sent, enriched = topics(RECORDS)
    del sent[0, 20]
    history = Folded(sent, enriched)
    assert len(history.later(15)) == 5 and history.later(20) == [] and history.count(30) == 29 and len(list(history.before(30))) == 29


def test_who_was_erased_does_not_come_back(tmp_path, monkeypatch):
    config = Config()
    config.stack.data_dir = tmp_path
    monkeypatch.setattr(kafka, "topic_source", lambda cluster, topic: 7)
    (tmp_path / "erasures").mkdir()
    for name, source, user in (("a", 7, "u1"), ("b", 8, "u2")):  # u2 of another topic
        (tmp_path / "erasures" / f"{name}.json").write_text(json.dumps(
            {"of": "user", "sha256": hash_of("user", user), "before": {"source": source, "offsets": {"0": 20}}}))
    history = Topics.__new__(Topics)
    Folded.__init__(history, *topics(RECORDS))
    history._erasures = erasures(config)
    found = {event["event_id"] for event in history.before(40)}
    gone = {record["event_id"] for record in RECORDS[:20] if record["user_id"] == "u1"}
    assert gone and found == {record["event_id"] for record in RECORDS} - gone
    assert history.count(40) == 40, "they are not missing"
