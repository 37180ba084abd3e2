"""Flink begins behind records that nobody has worked on, as after a checkpoint that lies: each of the three Python jobs does them all."""

import uuid

import confluent_kafka
import pytest

from tests.end_to_end.outside import events, until

USERS = 24
ITEMS = 3


@pytest.fixture
def users(loop, on_stack):
    """A function: that many exposures of new users, half of them clicked; it gives the users."""
    def make():
        names = [f"passed-{uuid.uuid4().hex[:8]}-{n}" for n in range(USERS)]
        for n, name in enumerate(names):
            shown = [f"passed-item-{n}-{i}" for i in range(ITEMS)]
            answer = loop.post("/events", [*events(name, shown, "impression"), *events(name, shown[: n % 2 * ITEMS], "click")])
            assert answer.status_code == 200, answer.text
        return names

    return make


def behind_all(loop, group, topic):
    """Have Flink begin at the end of `topic`, as its group says when a checkpoint took everything for done."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": loop.config.kafka.bootstrap, "group.id": group, "enable.auto.commit": False})
    high = loop.offsets(topic)
    consumer.commit(offsets=[confluent_kafka.TopicPartition(topic, p, at) for p, at in high.items()], asynchronous=False)
    consumer.close()
    return high


def test_what_a_checkpoint_passed_over_is_folded_learnt_and_indexed(loop, on_stack, users):
    model = loop.config.model.name
    settled = users()  # every job has met every partition, and stands somewhere
    until(lambda: all(loop.get("/recall", user=name, k=1).json()["found"] for name in settled), "vectors of the first users")
    stopped = on_stack("jobs", "stop", "features", "train", "vectors")
    assert stopped.returncode == 0, stopped.stderr
    before, enriched, samples, touched = loop.applied(), *(loop.offsets(one) for one in ("enriched", "samples", f"touched.{model}"))
    passed = users()

    start = behind_all(loop, "headrace-features", "interactions")
    assert on_stack("jobs", "submit", "features").returncode == 0
    until(lambda: {row.record.get("user_id") for row in loop.read("enriched", enriched)} >= set(passed), "what features passed over")
    rows = [row.record for row in loop.read("enriched", enriched) if row.record["user_id"] in passed]
    assert all(row["offset"] < start[row["partition"]] for row in rows) and len({row["event_id"] for row in rows}) == USERS * ITEMS * 3 // 2
    until(lambda: len({cause for cause, one in loop.samples(samples).items() if one["user_id"] in passed}) == USERS * ITEMS, "samples")

    behind_all(loop, f"headrace-train-{model}", "samples")
    assert on_stack("jobs", "submit", "train").returncode == 0
    users()
    loop.learnt(before, 2 * USERS * ITEMS)
    assert {row.record["id"] for row in loop.read(f"touched.{model}", touched) if row.record["space"] == "user"} >= set(passed)

    behind_all(loop, f"headrace-vectors-{model}", f"touched.{model}")
    assert on_stack("jobs", "submit", "vectors").returncode == 0
    users()
    until(lambda: all(loop.get("/recall", user=name, k=1).json()["found"] for name in passed), "vectors of what was passed over")
    loop.learnt(before, 3 * USERS * ITEMS)


def test_a_stop_and_a_resume_write_nothing_again_and_call_nothing_late(loop, on_stack, users):
    before = loop.applied()
    users()
    loop.learnt(before, USERS * ITEMS)
    enriched, letters = loop.offsets("enriched"), loop.offsets("dead-letters")
    for verb in ("stop", "resume"):
        done = on_stack("jobs", verb)
        assert done.returncode == 0, done.stderr
    names = users()
    loop.learnt(before, 2 * USERS * ITEMS)
    rows = [row.record for row in loop.read("enriched", enriched) if row.record.get("user_id")]
    assert {row["user_id"] for row in rows} == set(names), "only what came after the stop"
    assert loop.read("dead-letters", letters) == []
