"""The looks of the live page over counts and topics that are made up here."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headrace import kafka
from headrace.config import Config
from headrace.engine.console.sampler import Away
from headrace.live.flow import REST_MS, Asked, FlowLook
from headrace.live.freshness import ages
from headrace.live.learning import DAY_MS, WINDOWS_MAX, YOUNG, LearningLook
from headrace.live.processes import ProcessesLook, elsewhere
from headrace.live.sources import sources
from headrace.live.waiting import Quiet, Waiting
from headrace.models.progressive import MODEL, POPULARITY, increments
from headrace.rpc.errors import Unavailable
from headrace.rpc.freshness import Hop, Newest

NOW_MS = 1_800_000_000_000
WINDOW = 1000


class Stream:
    """Two partitions at `rate` offsets a second each since `began_ms`, the second ten offsets behind. Metrics as training counts them."""

    def __init__(self, began_ms, rate=10.0):
        self.now_ms, self.began_ms, self.rate, self.low = NOW_MS, began_ms, rate, 0
        self.metrics, self.asked_keys = {}, 0

    def at(self, ts_ms):
        there = max(0, int((min(ts_ms, self.now_ms) - self.began_ms) * self.rate / 1000))
        return {0: max(there, self.low), 1: max(there - 10, self.low)}

    def marks(self):
        return {partition: (self.low, high) for partition, high in self.at(self.now_ms).items()}

    def since_each(self, times):
        return [self.at(one) for one in times]

    def learn(self, window, good, count=200, positive=0.3):
        """`count` samples of a window, positives scored above negatives in a share `good` of them; the baseline at random."""
        random = np.random.default_rng(window)
        label = (random.random(count) < positive).astype(np.float32)
        right = random.random(count) < good
        score = np.where(right, np.where(label > 0, 0.8, 0.2), random.random(count)).astype(np.float32)
        for series, scores in ((MODEL, score), (POPULARITY, random.random(count).astype(np.float32))):
            for key, one in zip(*increments(series, np.full(count, window), scores, label), strict=True):
                self.metrics[int(key)] = self.metrics.get(int(key), 0) + int(one)

    def counts(self, keys):
        self.asked_keys += len(keys)
        return np.array([self.metrics.get(int(key), 0) for key in keys], np.int64)

    def look(self, settle_ms=20_000):
        return LearningLook("fm", WINDOW, settle_ms, self.marks, self.since_each, self.counts, lambda: self.now_ms)


def test_windows_are_dated_by_the_clock_and_scored_beside_the_baseline():
    stream = Stream(NOW_MS - 450_000)
    for window in range(5):
        stream.learn(window, good=0.2 * window)
    said, point = stream.look()()
    assert [one.samples for one in said.windows] == [200] * 5 and said.learnt == 1000 and point["learnt"] == 1000
    assert said.windows[-1].t_ms == NOW_MS
    for n, one in enumerate(said.windows[:-1]):
        assert abs(one.t_ms - (stream.began_ms + 100_000 * (n + 1))) < 20_000
    first, second, last = (said.windows[n] for n in (0, 1, 4))
    assert last.auc > second.auc > second.popularity_auc - 0.1 and last.logloss < first.logloss
    assert said.no_yesterday == YOUNG and said.yesterday == []


def test_yesterday_is_the_same_clock_time():
    stream = Stream(NOW_MS - DAY_MS - 450_000, rate=10.0)
    for window in (0, 1, 2, 3, 863, 864, 865, 866, 867, 868):
        stream.learn(window, good=0.9 if window > 800 else 0.3)
    said, _ = stream.look()()
    assert said.no_yesterday == "" and len(said.yesterday) == 4
    for window, one in enumerate(said.yesterday):
        assert abs(one.t_ms - (stream.began_ms + DAY_MS + 100_000 * (window + 1))) < 2000 and one.auc < said.windows[-1].auc
    assert all(said.windows[0].t_ms - 100_000 <= one.t_ms <= NOW_MS + 100_000 for one in said.yesterday)


def test_a_log_that_kafka_has_cut_has_no_yesterday():
    stream = Stream(NOW_MS - 3 * DAY_MS)
    stream.low = stream.at(NOW_MS - DAY_MS // 2)[0]
    stream.learn(stream.at(NOW_MS)[0] // WINDOW, good=0.5)
    assert stream.look()()[0].no_yesterday == YOUNG


def test_a_day_ago_in_which_nothing_was_learnt_says_so():
    stream = Stream(NOW_MS - 3 * DAY_MS)
    stream.learn((stream.at(NOW_MS)[0] - 1) // WINDOW, good=0.5)
    said = stream.look()()[0]
    assert said.no_yesterday == "24 hours ago nothing was learnt." and len(said.windows) == 1


def test_few_windows_are_kept_and_old_ones_are_asked_once():
    stream = Stream(NOW_MS - 3 * DAY_MS, rate=100.0)
    newest = (stream.at(NOW_MS)[0] - 1) // WINDOW
    for window in range(newest - WINDOWS_MAX - 5, newest + 1):
        stream.learn(window, good=0.5, count=20)
    look = stream.look()
    assert len(look()[0].windows) == WINDOWS_MAX
    stream.asked_keys = 0
    look()
    assert stream.asked_keys < 12 * 4100  # the total and the windows of the last half minute


def test_an_empty_stream_has_no_windows_and_no_recent_minute():
    stream = Stream(NOW_MS)
    said, point = stream.look()()
    assert (said.windows, said.recent, said.learnt, point["auc"]) == ([], None, 0, None)


def test_the_last_minute_is_what_was_learnt_since():
    stream = Stream(NOW_MS - 50_000)
    stream.learn(0, good=0.1)
    look = stream.look()
    assert look()[0].recent is None
    stream.now_ms += 2000
    assert look()[0].recent is None  # nothing was learnt in between
    stream.learn(0, good=0.9, count=300)
    stream.now_ms += 2000
    said, point = look()
    assert said.recent.samples == 300 and point["auc"] == said.recent.auc > 0.8
    stream.metrics.clear()  # another parameter server
    assert look()[0].recent is None


def test_what_waits_is_what_entered_and_did_not_leave():
    waiting = Waiting()
    assert [waiting.of(10, 10, True), waiting.of(15, 10, False), waiting.of(15, 12, False)] == [0, 5, 3]
    assert waiting.of(15, 13, True) == 0  # two never leave
    assert waiting.of(25, 20, False) == 3
    assert waiting.of(25, 26, False) == 0 and waiting.of(26, 26, False) == 1  # one left twice


def test_counts_that_stand_still():
    quiet = Quiet(1000)
    assert [quiet.for_long(at, 1, 2) for at in (0, 500, 1000)] == [False, False, True]
    assert not quiet.for_long(1500, 1, 3)


class Topics:
    """Topics of one partition with records at their ends; what the flow look asks of them and of the services."""

    def __init__(self):
        self.high = {"interactions": 100, "enriched": 95, "samples": 40, "touched.fm": 60, "vectors": 30}
        self.last = {"enriched": {"partition": 0, "offset": 89}, "touched.fm": {"caused_ms": 5000}, "vectors": {"caused_ms": 4700},
                     "samples": {"user_id": "u7", "source": 1, "partition": 0, "offset": 80}}
        self.exposures, self.learnt, self.through, self.state, self.now_ms = 44, {"fm": 38, "lr": 40}, False, "RUNNING", 0
        self.gone, self.collecting = (), (0.05, 1_000_000_000)

    def look(self, targets=1):
        return FlowLook(Asked(marks=lambda topic: {0: (0, self.high[topic])}, tail=self.tail, states=self.states,
                              impressions=lambda: self.of("features", self.exposures),
                              applied=lambda model: self.of("ps", self.learnt[model]),
                              known=lambda model, causes: self.of("ps", self.through), away=(Unavailable,),
                              collecting=lambda: self.of("flink", self.collecting)),
                        ("features", "samples", "train", "train-lr", "ingest-x", "vectors"), "fm", 1000, lambda: self.now_ms, targets)

    def of(self, who, value):
        if who in self.gone:
            raise Unavailable(f"{who} is away")
        return value

    def states(self):
        return self.of("flink", {name: self.state for name in ("features", "samples", "train", "vectors")})

    def tail(self, topic, places):
        assert places and places[-1] == (0, self.high[topic] - 1)
        return [self.last[topic]]


def jobs(look):
    said, point = look()
    return {job.name: job for job in said.jobs}, said, point


def test_each_job_is_counted_from_outside():
    found, said, point = jobs(Topics().look())
    assert found["features"].waiting == 10  # 100 interactions, the last in enriched is of offset 89
    assert (found["samples"].waiting, found["train"].waiting, found["train-lr"].waiting) == (4, 2, 0)
    assert (found["vectors"].behind_ms, found["vectors"].waiting) == (300, None)
    assert (found["samples"].read, found["samples"].written, found["train"].written) == (44, 40, 38)
    assert found["train-lr"].state == "not submitted" and found["train"].state == "RUNNING" and found["ingest-x"].read is None
    assert said.users == ["u7"] and said.problems == []
    assert point["features_read"] == 100 and point["vectors_written"] == 30 and point["train_written"] == 38


def test_of_several_targets_an_exposure_and_a_model_wait_for_one_sample_each():
    topics = Topics()
    topics.high["samples"] = 80
    found, _, _ = jobs(topics.look(targets=2))
    assert (found["samples"].waiting, found["train"].waiting, found["train-lr"].waiting) == (4, 2, 0)


def test_samples_that_were_refused_do_not_wait_for_ever():
    topics = Topics()
    look = topics.look()
    topics.through = True  # the shards know the last sample: what is missing was refused
    assert jobs(look)[0]["train"].waiting == 0
    topics.through, topics.high["samples"] = False, 45
    assert jobs(look)[0]["train"].waiting == 5


def test_exposures_that_were_late_do_not_wait_for_ever_unless_the_job_does_not_run():
    topics = Topics()
    topics.state = "RESTARTING"
    look = topics.look()
    jobs(look)
    topics.now_ms = REST_MS + 2000
    assert jobs(look)[0]["samples"].waiting == 4
    topics.state = "RUNNING"
    assert jobs(look)[0]["samples"].waiting == 0


def test_a_heap_that_is_full_is_told_with_what_to_do():
    topics = Topics()
    topics.collecting = (0.87, 1_180_000_000)
    assert jobs(topics.look())[1].problems == [
        "a TaskManager spends 87% of its time in garbage collection: the state of the jobs does not fit its heap of 1,180 MB."
        ' Raise flink.taskmanager_mb, or set flink.state_backend = "rocksdb" (docs/sizing.md)']


@pytest.mark.parametrize("who", ["features", "ps", "flink"])
def test_who_is_away_is_named_once_and_the_rest_is_shown(who):
    topics = Topics()
    topics.gone = (who,)
    found, said, _ = jobs(topics.look())
    assert said.problems == [f"{who} is away"] and found["features"].waiting == 10
    assert (found["samples"].waiting is None) == (who == "features") and (found["train"].waiting is None) == (who == "ps")
    assert (found["features"].state == "") == (who == "flink")


def test_ages_are_read_from_a_metrics_page():
    hop, registry = Hop("vector"), CollectorRegistry()
    registry.register(hop)
    text = generate_latest(registry).decode()
    assert ages(text, "vector") == ({}, 0)
    hop.observe(Newest(1, 0, 0, hop._now_ms() - 70))
    found = ages(generate_latest(registry).decode(), "vector")
    assert found.causes == 1 and set(found.ms) == {0.5, 0.99} and 60 < found.ms[0.99] < 10_000
    assert ages(generate_latest(registry).decode(), "gradient") == ({}, 0)


@pytest.fixture
def nowhere(tmp_path):
    """A configuration at whose addresses nobody listens."""
    held = [socket.socket() for _ in range(12)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    address = [f"127.0.0.1:{port}" for port in ports]
    return Config(stack={"data_dir": tmp_path}, kafka={"bootstrap": address[0]}, registry={"url": f"http://{address[1]}"},
                  ps={"addresses": [address[2]], "http_ports": [ports[3]]}, features={"address": address[4], "http_port": ports[5]},
                  replica={"addresses": [address[6]], "http_ports": [ports[7]]}, ann={"address": address[8], "http_port": ports[9]},
                  engine={"url": f"http://{address[10]}"}, flink={"url": f"http://{address[11]}"})


def test_processes_without_a_stack_are_asked_at_their_addresses(nowhere):
    look = ProcessesLook(nowhere, lambda: "no broker")
    said, _ = look()
    assert not said.supervised and [row.name for row in said.rows] == [name for name, _, _ in elsewhere(nowhere)]
    assert {row.state for row in said.rows} == {"does not answer"} and said.rows[0].note == "no broker"
    assert {"kafka", "registry", "ps-0", "features", "ann", "replica", "engine", "flink-jobmanager"} == {row.name for row in said.rows}
    look.close()


def test_every_source_says_that_it_is_away_when_nobody_is_there(nowhere, monkeypatch):
    monkeypatch.setattr(kafka, "REACH_S", 0.3)
    shown, close = sources(nowhere, Hop("recommendation"))
    try:
        for look in (shown.learning, shown.flow):
            with pytest.raises(Away, match=r"127\.0\.0\.1"):
                look()
        hops, point = shown.freshness()
        assert [bool(hop.problem) for hop in hops.hops] == [True, True, True, False] and set(point.values()) == {None}
        assert hops.hops[0].goal_ms == 1500 and "1,200 ms" in hops.note
        with pytest.raises(Away):
            shown.trail("u", "e", NOW_MS)()
    finally:
        close()
