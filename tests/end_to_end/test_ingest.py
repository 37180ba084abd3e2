"""Topics that others write, on real stacks: the same features and samples as the mapped file of the same rows, whatever dies meanwhile."""

import json
import random
import struct
import threading
import time
from dataclasses import replace

import confluent_kafka
import fastavro
import numpy as np
import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from headrace import ingest, ingests, kafka, submission
from headrace import rows as rows_of
from headrace.flink_rest import FlinkRest
from headrace.ingest_log import Log
from headrace.kafka_types import KafkaUnavailable
from headrace.live_taps import live_taps
from headrace.replay import interactions
from headrace.schemas.registry import RegistryClient
from headrace.streaming.transactions import NotWritten, Part, Writers, committed
from headrace.verify import counts, frozen
from headrace.verify.loop import JOBS, drained
from headrace.verify.victims import find, is_back, workers
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, until

ROWS_MIN, ROWS_MAX, RATE, BAD_EVERY = 4000, 60_000, 100, 400
QUIET = {"log_level": 0}
T = 880_000_000
MAPPING = """
time_unit = "s"
[columns]
user_id = "user.id"
item_id = "item_id"
ts = "timestamp"
label = "rating >= 4"
[user]
fields = ["age", "gender"]
[item]
fields = ["genre"]
[source]
format = "{format}"
"""
VALUE = {"type": "record", "name": "Value", "fields": [
    {"name": "user_id", "type": "string"}, {"name": "item_id", "type": "long"}, {"name": "timestamp", "type": "long"},
    {"name": "rating", "type": ["null", "double"]}, {"name": "age", "type": ["null", "int"]},
    {"name": "genre", "type": {"type": "array", "items": "string"}}]}
CHANGE = {"type": "record", "name": "Envelope", "fields": [
    {"name": "before", "type": ["null", VALUE], "default": None}, {"name": "after", "type": ["null", "Value"], "default": None},
    {"name": "op", "type": "string"}]}


def log(seed=1, count=ROWS_MAX):
    """A log as MovieLens is one: few users, many of their ratings in a row, items by popularity, times in seconds and in order."""
    chance, users, user = random.Random(seed), {}, "0"
    for n in range(count):
        if chance.random() < 0.1:
            user = f"{chance.randrange(120):03}"
        age = users.setdefault(user, chance.randrange(18, 60))
        item = int(chance.paretovariate(0.8)) % 400
        yield {"user": {"id": user}, "item_id": item, "timestamp": T + 20 * n, "rating": chance.randrange(1, 6), "age": age,
               "gender": None if age % 7 == 0 else "F", "genre": ["Action", "Drama", "War"][item % 3 :]}


def as_json(row):
    return json.dumps(row).encode()


def as_change(row):
    """Every other in Kafka Connect's wrapping."""
    change = {"before": None, "after": row, "op": "c" if row["item_id"] % 5 else "r", "source": {"table": "ratings"}, "ts_ms": 1}
    return as_json({"schema": {"type": "struct"}, "payload": change} if row["timestamp"] % 3 else change)


DELETION = [as_json({"before": {"user": {"id": "0"}}, "after": None, "op": "d"}), None]
# format -> (a row's message, what stands between them, the reasons of its letters)
FORMATS = {"json": (as_json, [b"{", as_json({"user": {}, "item_id": 1, "timestamp": T, "rating": 5})], ["not_json", "missing_field"]),
           "debezium-json": (as_change, [*DELETION, as_json({"op": "?"})], [None, None, "bad_envelope"])}
KILLS = {"json": ("flink-taskmanager", "worker", "kafka"), "debezium-json": ("flink-taskmanager", "worker")}


class Theirs:
    """A topic and who writes it: rows in their order, things that are no rows between them."""

    def __init__(self, config, topic, message, between):
        admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap, **QUIET})  # kept until it has answered
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
        self._producer = confluent_kafka.Producer({"bootstrap.servers": config.kafka.bootstrap, "linger.ms": 1,
                                                  "enable.idempotence": True, **QUIET})
        self._topic, self._message, self._between = topic, message, between
        self.at, self.other = [], []  # offsets of rows; (offset, which of `between`)
        self._next = 0

    def write(self, rows, rate=None, over=None):
        """With `over`, an event, until it is set and enough was written."""
        began = time.monotonic()
        for n, row in enumerate(rows):
            if over is not None and over.is_set():
                if len(self.at) >= ROWS_MIN:
                    break
                rate = None
            if n % BAD_EVERY == BAD_EVERY // 2:
                for which, value in enumerate(self._between):
                    self._send(value)
                    self.other.append((self._next - 1, which))
            self._send(self._message(row))
            self.at.append(self._next - 1)
            if rate and n % 20 == 0:
                self._producer.poll(max(0.0, began + n / rate - time.monotonic()))
                time.sleep(max(0.0, began + n / rate - time.monotonic()))
        assert self._producer.flush(60) == 0

    def _send(self, value):
        self._producer.produce(self._topic, value=value, key=b"k")
        self._next += 1


@pytest.fixture(scope="module", params=FORMATS)
def ingested(request, tmp_path_factory):
    """(outside, format, rows as the mapped file, the topic's writer, definition) after all rows went through under its KILLS."""
    form = request.param
    folder = tmp_path_factory.mktemp(form)
    message, between, _ = FORMATS[form]
    given = list(log())
    (folder / "m.toml").write_text(MAPPING.format(format=form))
    for config in running(folder):
        with Outside(config) as outside:
            submission.submit(config, JOBS)
            theirs = Theirs(config, "shop.ratings", message, between)
            theirs.write(given[:BAD_EVERY])
            definition = ingests.define("shop.ratings", folder / "m.toml", "ratings")
            ingests.save(config, definition)
            ingest.begin(config, definition)
            steps = Log(config, definition, "log")
            steps.claim()
            submission.submit(config, [definition.job])
            over = threading.Event()
            writer = threading.Thread(target=theirs.write, args=(given[BAD_EVERY:], RATE, over))
            writer.start()
            try:
                for what in KILLS[form]:
                    killed(config, definition, what)
                assert writer.is_alive(), "the kills came while it was written"
            finally:
                over.set()
                writer.join()
            steps.drain()
            yield outside, form, as_file(config, folder, given[: len(theirs.at)], theirs), theirs, definition


def as_file(config, folder, given, theirs):
    """The rows through headrace replay's own reader, under the names that the topic's places give them."""
    flat = [{**row, "user.id": row["user"]["id"]} for row in given]
    (folder / "log.jsonl").write_bytes(b"".join(as_json(row) + b"\n" for row in flat))
    (folder / "file.toml").write_text((folder / "m.toml").read_text())
    found = rows_of.load(folder / "log.jsonl", ingests.define("shop.ratings", folder / "file.toml").mapping)
    source = kafka.topic_source(config.kafka.cluster, "shop.ratings")
    return replace(found, digest=f"{source:08x}-0", row=np.array(theirs.at)[found.row])


def killed(config, definition, what):
    """End it in mid-stream, and wait until the ingest moves on."""
    before = stands(config, definition)
    until(lambda: stands(config, definition) > before + 400, "the ingest to move")
    data, rest = config.stack.data_dir, FlinkRest(config.flink.url)
    job = rest.running()[definition.job]["jid"]

    def restarts():
        return int(rest._call("GET", f"/jobs/{job}/metrics?get=numRestarts")[0]["value"])

    was = restarts()
    if what == "worker":
        pid = until(lambda: next((pid for pid in workers(data) if holds(pid, f"marks/ingest-{definition.name}-")), 0), "its worker")
        psutil.Process(pid).kill()
    else:
        victim = find(data, what, lambda pids: pids[0])
        victim.kill()
        until(lambda: is_back(data, victim), f"{what} to come back")
    until(lambda: what == "kafka" or restarts() > was, "the job to restart")  # a transaction may outlast a broker's absence
    at = stands(config, definition)
    until(lambda: stands(config, definition) > at + 200, "the ingest to go on")


def holds(pid, name):
    try:
        return any(name in one.path for one in psutil.Process(pid).memory_maps())
    except psutil.Error:
        return False


def stands(config, definition):
    """How many records were read; waits for a broker that is away."""
    return until(lambda: asked(config, definition) + 1, "the broker") - 1


def asked(config, definition):
    try:
        return sum(ingest.stands(config, definition).values())
    except (KafkaUnavailable, confluent_kafka.KafkaException):
        return -1


def sent(outside, start=None):
    """What lies in interactions, heartbeats aside."""
    rows = outside.read("interactions", start or dict.fromkeys(outside.offsets("interactions"), 0))
    return [row for row in rows if row.record["action"] != "heartbeat"]


def test_interactions_are_those_of_the_mapped_file_each_once(ingested):
    outside, _, rows, _, _ = ingested
    found = [row.record for row in sent(outside)]
    wanted = [record for _, *both in interactions(rows, slice(0, len(rows))) for record in both if record is not None]
    by_id = {record["event_id"]: record for record in found}
    assert len(by_id) == len(found) == len(wanted), "none twice, none lost"
    assert [by_id[record["event_id"]] for record in wanted] == wanted


def test_samples_and_features_are_those_of_the_mapped_file(ingested):
    outside, _, rows, _, _ = ingested
    config = outside.config
    with live_taps(config) as taps:
        drained(len(rows), lambda: min(taps.applied()))
        left = counts.read(taps)
        found = counts.checks(left, rows, taps, config.ps.reachable, config.features.address)
    events = {(row.partition, row.offset): row.record for row in sent(outside)}
    found += frozen.compare(left.enriched, events, config.features)
    assert [one for one in found if not one["agree"]] == []
    assert {one["check"]: one["found"] for one in found}["exposures compared"] == len(rows) >= ROWS_MIN


def test_a_users_order_is_the_topics(ingested):
    """Within the partition of each user."""
    outside, _, _, _, _ = ingested
    places = {}
    for row in sent(outside):
        places.setdefault((row.partition, row.record["user_id"]), []).append(int(row.record["request_id"].split("-")[2]))
    assert all(offsets == sorted(offsets) for offsets in places.values())


def test_what_is_no_row_is_a_letter_once_or_left_aside(ingested):
    outside, form, _, theirs, _ = ingested
    reasons = FORMATS[form][2]
    times = len({offset - which for offset, which in theirs.other})
    found = sorted((row.record["partition"], row.record["offset"], row.record["reason"]) for row in outside.read("dead-letters", {0: 0})
                   if row.record["topic"] == "shop.ratings")
    assert found == sorted((0, offset, reasons[which]) for offset, which in theirs.other if reasons[which])
    on_stack = towards(outside.config)
    listed = json.loads(on_stack("dead-letters", "list", "--topic", "shop.ratings", "--json").stdout)
    assert {row["reason"]: row["records"] for row in listed} == {reason: times for reason in reasons if reason}
    shown = on_stack("dead-letters", "show", "shop.ratings", "0", str(found[0][1])).stdout
    assert f"reason    {found[0][2]}" in shown and "{" in shown.split("original")[1]
    told = on_stack("dead-letters", "resend", "--force", "--topic", "shop.ratings").stdout
    assert "sent again: 0" in told and "of a topic that others write" in told


def test_a_check_names_what_is_no_row_and_the_job_goes_on_where_it_stood(ingested, tmp_path):
    outside, form, _, theirs, definition = ingested
    on_stack = towards(outside.config)
    (tmp_path / "m.toml").write_text(MAPPING.format(format=form))
    (tmp_path / "other.toml").write_text(MAPPING.format(format=form).replace("item_id\"\nts", "itemid\"\nts"))
    checked = on_stack("ingest", "--topic", "shop.ratings", "--mapping", str(tmp_path / "m.toml"), "--check", "1000")
    first = next(offset for offset, which in theirs.other if FORMATS[form][2][which])
    assert checked.returncode == 1 and "1,000 records: " in checked.stdout and f"partition 0, offset {first}" in checked.stdout
    refused(on_stack, "--topic", "shop.ratings", "--mapping", str(tmp_path / "other.toml"), says="no field 'itemid'")
    before, start = stands(outside.config, definition), outside.offsets("interactions")
    resumed = on_stack("jobs", "resume", definition.job)
    assert resumed.returncode == 0, resumed.stderr
    assert definition.job in on_stack("jobs", "list").stdout
    theirs.write([{**row, "timestamp": row["timestamp"] + 10**7} for row in log(2, 50)])
    until(lambda: stands(outside.config, definition) == before + 50, "the rest")
    assert {row.record["request_id"].split("-")[2] for row in sent(outside, start)} == set(map(str, theirs.at[-50:]))
    stopped = on_stack("jobs", "stop", definition.job)
    assert stopped.returncode == 0 and definition.job in stopped.stdout


def refused(on_stack, *arguments, says):
    done = on_stack("ingest", *arguments)
    assert done.returncode and done.stderr.startswith("error: ") and says in done.stderr, done.stderr


@pytest.mark.parametrize("ingested", ["json"], indirect=True)  # what it says does not depend on the format
def test_the_command_line_says_what_is_wrong(ingested, tmp_path):
    on_stack = towards(ingested[0].config)
    (tmp_path / "m.toml").write_text(MAPPING.format(format="json"))
    (tmp_path / "proto.toml").write_text(MAPPING.format(format="protobuf"))
    given = ("--mapping", str(tmp_path / "m.toml"))
    for arguments, says in [(("--topic", "shop.rating", *given), "the nearest is 'shop.ratings'"),
                            (("--topic", "shop.ratings", "--mapping", str(tmp_path / "proto.toml")), "protobuf is not read"),
                            (("--topic", "samples", *given), "headrace's own topic"),
                            (("--topic", "shop.ratings", *given, "--name", "ratings", "--clock", "log", "--start", "latest"), "before"),
                            (("--topic", "shop.ratings", *given, "--clock", "now"), "this stack runs on the clock 'log'")]:
        refused(on_stack, *arguments, says=says)


@pytest.mark.parametrize("ingested", ["json"], indirect=True)  # it asks for a stack and the log's clock, of any format
def test_avro_records_and_changes_by_the_registry(ingested, tmp_path):
    outside, _, _, _, _ = ingested
    config, registry = outside.config, RegistryClient(outside.config.registry.url)
    on_stack = towards(config)
    given = [{**row, "user_id": row["user"]["id"], "timestamp": row["timestamp"] + 2 * 10**7} for row in log(3, 60)]
    for form, schema, wrap in (("avro", VALUE, lambda row: row), ("debezium-avro", CHANGE, lambda row: {"after": row, "op": "c"})):
        topic = f"their.{form}"
        schema_id = registry.register(f"{topic}-value", json.dumps(schema))

        def message(row, schema=schema, wrap=wrap, schema_id=schema_id):
            import io

            out = io.BytesIO()
            value = {"user_id": row["user_id"], **{name: row[name] for name in ("item_id", "timestamp", "rating", "age", "genre")}}
            fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), wrap(value))
            return b"\0" + struct.pack(">I", schema_id) + out.getvalue()

        start = outside.offsets("interactions")
        Theirs(config, topic, message, []).write(given)
        (tmp_path / "m.toml").write_text(MAPPING.format(format=form).replace("user.id", "user_id").replace(', "gender"', ""))
        done = on_stack("ingest", "--topic", topic, "--mapping", str(tmp_path / "m.toml"), "--clock", "log")
        assert done.returncode == 0, done.stderr
        assert "60 records read to the end" in done.stdout
        found = [row.record for row in sent(outside, start)]
        assert [record["item_id"] for record in sorted(found, key=lambda one: one["ts_ms"]) if record["action"] == "impression"] == [
            str(row["item_id"]) for row in given]
        assert {record["context"]["user.age"] for record in found} == {str(row["age"]) for row in given}
        given = [{**row, "timestamp": row["timestamp"] + 10**7} for row in given]


@pytest.mark.parametrize("ingested", ["json"], indirect=True)  # it asks for a broker alone
def test_a_worker_that_lives_on_is_shut_out_by_its_successor(ingested):
    config = ingested[0].config
    cluster = config.kafka.cluster
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap, **QUIET})
    for made in admin.create_topics([NewTopic("read-here", 2, 1), NewTopic("written-here", 1, 1)]).values():
        made.result(30)
    first, second = (Writers(cluster, "headrace-ingest-zombie", "read-here") for _ in range(2))
    assert (first.next(0), first.next(1)) == (0, 0)
    first.write({0: Part([("written-here", b"k", b"0"), ("written-here", b"k", b"1")], 2), 1: Part([("written-here", b"k", b"x")], 9)})
    begun = first._writers[0]  # it stops in the middle
    begun.begin_transaction()
    begun.produce("written-here", key=b"k", value=b"2")
    begun.flush(10)
    assert second.next(0) == 2 and second.next(1) == 9
    with pytest.raises(NotWritten):
        first.write({1: Part([("written-here", b"k", b"y")], 10)})
    second.write({0: Part([("written-here", b"k", b"2")], 3), 1: Part([], 12)})
    with pytest.raises(confluent_kafka.KafkaException):
        begun.commit_transaction(10)
    assert committed(cluster, "headrace-ingest-zombie", "read-here", [0, 1]) == {0: 3, 1: 12}
    marks = kafka.watermarks(cluster, "written-here")
    seen = [one.value for one in kafka.read_between(cluster, "written-here", {0: 0}, {0: marks[0][1]})]
    assert sorted(seen) == [b"0", b"1", b"2", b"x"]
    first.close()
    second.close()
