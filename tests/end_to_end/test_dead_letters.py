"""Dead letters on the real stack: what the samples job refuses, `headrace dead-letters`, and a worker that dies of a record under Flink."""

import json
import subprocess
import sys
import time
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from headrace import settings_file, submission
from headrace.flink_rest import FlinkRest
from headrace.schemas.codec import Codec, schema_text
from headrace.schemas.errors import UnknownSchema
from headrace.schemas.registry import RegistryClient
from tests.end_to_end.outside import until

USER, OUT = "letter-writer", "deadly-out"
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def writer(loop):
    """send(item, action, **fields) -> (partition, offset) of an event written to Kafka; `header` replaces its schema id."""
    loop.post("/events", {"user_id": "clock", "item_id": "clock", "action": "impression"})  # the clock runs: windows close
    until(lambda: loop.get("/clock").json()["mode"] == "now", "the clock is now")
    codec = Codec("interactions", RegistryClient(loop.config.registry.url))
    producer = confluent_kafka.Producer({"bootstrap.servers": loop.config.kafka.bootstrap, "partitioner": "murmur2_random"})

    def send(item, action="impression", header=None, ts_ms=None, user=USER):
        placed = []
        value = codec.encode({"event_id": f"{item}-{action}-{time.time_ns()}", "user_id": user, "item_id": item, "action": action,
                              "ts_ms": ts_ms or time.time_ns() // 1_000_000})
        value = value if header is None else value[:1] + header.to_bytes(4, "big") + value[5:]
        producer.produce("interactions", value=value, key=user.encode(), on_delivery=lambda error, message: placed.append(message))
        assert producer.flush(10) == 0 and placed[0].error() is None
        return placed[0].partition(), placed[0].offset()

    return send


def letters(loop, start):
    """(partition, offset) -> reasons of what was refused since `start`."""
    found = {}
    for row in loop.read("dead-letters", start):
        found.setdefault((row.record["partition"], row.record["offset"]), []).append(row.record["reason"])
    return found


def test_late_exposures_and_orphan_actions(loop, writer):
    start = loop.offsets("dead-letters")
    orphan = writer("never-shown", "click")
    until(lambda: orphan in letters(loop, start), "its letter")  # a watermark has passed it: before the first one nothing is late
    late = writer("late-item", ts_ms=time.time_ns() // 1_000_000 - HOUR_MS)
    told = until(lambda: {late, orphan} <= (found := letters(loop, start)).keys() and found, "both letters")
    assert (told[late], told[orphan]) == (["late"], ["no_exposure"])


def test_list_show_and_resend(loop, on_stack, writer):
    registry, unknown = RegistryClient(loop.config.registry.url), 1
    while _known(registry, unknown):
        unknown += 1
    start, enriched = loop.offsets("dead-letters"), loop.offsets("enriched")
    place = writer("comes-later", header=unknown)
    hopeless = writer("of-1970", ts_ms=1)
    until(lambda: {place, hopeless} <= letters(loop, start).keys(), "their letters")

    listed = {row["reason"]: row for row in json.loads(on_stack("dead-letters", "list", "--json").stdout)}
    assert listed["unknown_schema"]["records"] >= 1 and listed["unknown_schema"]["resend"] and not listed["bad_ts"]["resend"]
    assert "headrace dead-letters show" in on_stack("dead-letters", "list", "--since", "10m").stdout
    assert on_stack("dead-letters", "list", "--reason", "poison_touch").stdout == "no dead letters\n"

    shown = on_stack("dead-letters", "show", f"{hopeless[0]}:{hopeless[1]}").stdout
    assert "reason    bad_ts" in shown and "'of-1970'" in shown and USER in shown and "resend    no" in shown
    shown = on_stack("dead-letters", "show", "interactions", *map(str, place)).stdout
    assert "reason    unknown_schema" in shown and "cannot be read" in shown and "resend    yes" in shown
    absent = on_stack("dead-letters", "show", "0:99999999")
    assert absent.returncode == 1 and absent.stderr.startswith("error: no dead letter")

    def waiting():
        """How many letters of the reason would be sent; other tests may have left some that are refused again for ever."""
        told = on_stack("dead-letters", "resend", "--reason", "unknown_schema", "--dry-run").stdout
        return int(told.split("would be sent again: ")[1].split()[0])

    before = waiting()
    assert before >= 1
    other = json.loads(schema_text("interactions"))
    other["doc"] = "As another producer writes it."
    assert registry.register("another-value", json.dumps(other)) == unknown

    def folded():
        return [row.record["offset"] for row in loop.read("enriched", enriched) if row.record["item_id"] == "comes-later"]

    def sent_again():
        """The features job asks for an unknown id once in ten seconds: what is sent before that is refused again, and sent again."""
        sent = on_stack("dead-letters", "resend", "--reason", "unknown_schema")
        assert sent.returncode == 0, sent.stderr
        return folded()

    until(sent_again, "what was sent again")
    until(lambda: waiting() == before - 1, "one letter less")
    found = letters(loop, start)
    assert len(set(folded())) == 1 and found[place] == ["unknown_schema", "resent"]
    # Its event time has passed by now: the samples job says so, and a resend of that is refused.
    until(lambda: letters(loop, start).get((place[0], folded()[0])) == ["late"], "the letter of the samples job")
    assert "late cannot get better" in on_stack("dead-letters", "resend", "--reason", "late").stdout


def _known(registry, number):
    try:
        return bool(registry.schema(number))
    except UnknownSchema:
        return False


DEADLY = '''
import os, signal, sys
from urllib.parse import urlsplit
from headrace.config import load
from headrace.jobs.launch import Job, addresses, marks, source, submit
from headrace.streaming import features
from headrace.streaming.featurize import RESULT, Featurize
from headrace.streaming.stage import vectorised
from headrace.streaming.tables import raw_sink, raw_source

class Deadly(Featurize):
    def _enriched(self, scanned, *rest):
        if b"\x0cdeadly" in scanned.data.tobytes():  # an item_id, with its length
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._enriched(scanned, *rest)

def tables(connection):
    newest = raw_source(connection, "interactions", "interactions", "deadly").replace("'earliest'", "'latest'")
    return [newest, raw_sink(connection, "enriched", "deadly-out")]

config = load(sys.argv[1])
made = Deadly(addresses(config), source(config, "interactions"), config.engine.event_bytes_max, marks=marks(config) + "-deadly")
stage = vectorised(made, RESULT)
job = Job("deadly", tables, [features.insert()], functions={"featurize": stage})
print(submit(job, config, target=urlsplit(config.flink.url).netloc))
'''


@pytest.fixture
def deadly(loop):
    """The id of a features job, beside the real one, whose worker kills itself at every item `deadly`; it writes to a topic of its own."""
    admin = AdminClient({"bootstrap.servers": loop.config.kafka.bootstrap})
    admin.create_topics([NewTopic(OUT, loop.config.kafka.partitions, 1)])[OUT].result(30)
    with settings_file.of(loop.config) as file:
        done = subprocess.run([sys.executable, "-c", DEADLY, str(file)], env=submission.environment(loop.config), capture_output=True,
                              text=True, check=False)
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[-1]
    try:
        until(lambda: FlinkRest(loop.config.flink.url).ready(job), "the deadly job runs")
        yield job
    finally:
        loop.http.patch(f"{loop.config.flink.url}/jobs/{job}?mode=cancel")
        until(lambda: loop.flink(f"/jobs/{job}")["state"] == "CANCELED", "it is cancelled")


def test_a_worker_that_dies_three_times_of_a_record_leaves_it_out(loop, writer, deadly):
    until(lambda: writer("warm") and out(loop), "its first event")  # it starts at the newest, whenever it looks that up
    # Without a checkpoint of after that it would start again behind the record that killed it.
    checkpoints = loop.flink(f"/jobs/{deadly}/checkpoints")["counts"]["completed"]
    until(lambda: loop.flink(f"/jobs/{deadly}/checkpoints")["counts"]["completed"] > checkpoints + 1, "a checkpoint")
    lives, start = loop.lives(), loop.offsets("dead-letters")
    before = [writer(f"before-{n}") for n in range(5)]
    place = writer("deadly")
    after = [writer(f"after-{n}") for n in range(5)]
    until(lambda: {*before, *after} <= out(loop), lambda: f"what came after it; deaths {deaths(loop, deadly)}")
    assert place not in out(loop)
    assert {at: said for at, said in letters(loop, start).items() if "poison" in said} == {place: ["poison"]}
    assert deaths(loop, deadly) == 3
    shown = next(row.record for row in loop.read("dead-letters", start) if row.record["reason"] == "poison")
    assert "died or failed 3 times" in shown["detail"] and (shown["topic"], shown["partition"], shown["offset"]) == ("interactions", *place)
    assert {name: loop.lives()[name] for name in lives if name != "deadly"} == {name: lives[name] for name in lives if name != "deadly"}
    assert not list(Path(loop.config.stack.data_dir).glob("marks/*/deaths.json")), "the real jobs' workers did not die"


def deaths(loop, job):
    return len(loop.flink(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"])


def out(loop):
    """(partition, offset) of what the deadly job has written."""
    codec = Codec("enriched", RegistryClient(loop.config.registry.url))
    rows = [codec.decode(value) for value in values(loop)]
    return {(row["partition"], row["offset"]) for row in rows if row["user_id"] == USER}


def values(loop):
    """Every value of the deadly job's topic."""
    settings = {"bootstrap.servers": loop.config.kafka.bootstrap, "group.id": "deadly", "enable.auto.commit": False}
    consumer = confluent_kafka.Consumer(settings)
    try:
        parts = [confluent_kafka.TopicPartition(OUT, p, 0) for p in consumer.list_topics(OUT, timeout=10).topics[OUT].partitions]
        left = {part.partition: consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts}
        consumer.assign(parts)
        found = []
        while any(left.values()):
            for message in consumer.consume(1000, 0.2):
                assert message.error() is None, message.error()
                found.append(message.value())
                if message.offset() + 1 >= left[message.partition()]:
                    left[message.partition()] = 0
        return found
    finally:
        consumer.close()
