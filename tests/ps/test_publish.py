import contextlib
import io
import threading

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.ps import kernels, publish
from headrace.ps.index import kernel_input
from headrace.ps.publish import Publisher
from headrace.ps.replica import Replica
from headrace.rpc.freshness import Newest
from headrace.rpc.owner import Owner
from headrace.schemas import hashing  # the folder of the schema
from tests.ps import worlds


class Topic:
    def __init__(self, fail_at=()):
        self.sent, self.calls, self.fail_at = [], 0, set(fail_at)

    def __call__(self, topic, key, record):
        self.calls += 1
        if self.calls in self.fail_at:
            raise ConnectionError("broker away")
        self.sent.append((topic, key, record))


def keys_in(record):
    return np.frombuffer(record["keys"], np.uint64)


def test_blocks_are_by_slot_absolute_and_follow_one_another(tmp_path):
    rng, topic = np.random.default_rng(0), Topic()
    with worlds.store(tmp_path) as store:
        publisher = Publisher(store.shard, topic, lambda: 77)
        assert publisher.run_pass() == 0
        touched = set()
        for i in range(20):
            tables = worlds.push_of(rng)
            store.shard.push("fm", "click", worlds.causes([i]), tables)
            touched |= set(tables["weights"][0].tolist())
            if i % 3 == 0:
                publisher.run_pass()
                assert publisher.run_pass() == 0
        last = {}
        for name, key, record in topic.sent:
            assert (name, record["model"], record["table"], record["dim"], record["ts_ms"]) == ("weights.fm", "fm", "weights", 3, 77)
            slot = record["slot"]
            assert key == str(slot).encode()
            assert (kernels.slots_of(kernel_input(keys_in(record))) == slot).all()
            assert record["first_sequence"] == last.get(slot, 0) + 1 <= record["last_sequence"]
            last[slot] = record["last_sequence"]
        assert {int(key) for _, _, record in topic.sent for key in keys_in(record)} <= touched
        publisher.run_pass()
        assert {int(key) for _, _, record in topic.sent for key in keys_in(record)} == touched
        newest = {int(key): row for _, _, r in topic.sent
                  for key, row in zip(keys_in(r), np.frombuffer(r["values"], np.float32).reshape(-1, 3), strict=True)}
        assert (store.shard.pull("fm", "weights", worlds.keys_of(list(newest))) == np.array(list(newest.values()))).all()


def test_records_fit_the_schema(tmp_path):
    import json
    from pathlib import Path

    topic = Topic()
    schema = fastavro.parse_schema(json.loads((Path(hashing.__file__).parent / "weights.avsc").read_text()))
    with worlds.store(tmp_path) as store:
        store.shard.push("fm", "click", worlds.causes([1]), worlds.push_of(np.random.default_rng(0)))
        Publisher(store.shard, topic, lambda: 77).run_pass()
    for _, _, record in topic.sent:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, record, strict=True)
        out.seek(0)
        assert fastavro.schemaless_reader(out, schema, None) == record


@pytest.mark.parametrize("where", ["publish", "flush"])
def test_what_failed_is_sent_again(tmp_path, where):
    topic, flushes = Topic({2} if where == "publish" else ()), []

    def flush():
        flushes.append(1)
        if where == "flush" and len(flushes) == 1:
            raise TimeoutError("not acknowledged")

    with worlds.store(tmp_path) as store:
        store.shard.push("fm", "click", worlds.causes([1]), worlds.push_of(np.random.default_rng(0)))
        publisher = Publisher(store.shard, topic, lambda: 77, flush)
        before = len(store.shard.tables["fm", "weights"].changed())
        with pytest.raises(OSError):
            publisher.run_pass()
        assert len(store.shard.tables["fm", "weights"].changed()) == before
        sent = len(topic.sent)
        assert publisher.run_pass() == before
        assert all(record["first_sequence"] == 1 for _, _, record in topic.sent[sent:])


def test_a_timed_failure_waits_a_second(tmp_path, caplog):
    topic = Topic(range(1, 100))
    with worlds.store(tmp_path) as store:
        store.shard.push("fm", "click", worlds.causes([1]), worlds.push_of(np.random.default_rng(0)))
        publisher = Publisher(store.shard, topic, lambda: 77)
        for _ in range(5):
            publisher.run_timed()
    assert topic.calls == 1
    assert caplog.text.count("publishing weights failed") == 1


def test_a_long_backlog_goes_in_passes_of_whole_slots(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "PASS_ROWS", 100)
    monkeypatch.setattr(publish, "BLOCK_ROWS", 7)
    topic = Topic()
    with worlds.store(tmp_path) as store:
        keys = np.arange(3000, dtype=np.uint64)
        store.shard.push("fm", "click", worlds.causes([1]), {"weights": (keys, np.ones((3000, 3), np.float32))})
        publisher, passes = Publisher(store.shard, topic, lambda: 77), 0
        while publisher.run_pass():
            passes += 1
        assert 15 < passes < 31
        assert sorted(int(key) for _, _, record in topic.sent for key in keys_in(record)) == keys.tolist()


def test_what_was_not_published_before_a_crash_is_after_it(tmp_path):
    rng, topic = np.random.default_rng(0), Topic()
    with worlds.store(tmp_path) as store:
        store.shard.push("fm", "click", worlds.causes([1]), worlds.push_of(rng))
        Publisher(store.shard, topic, lambda: 77).run_pass()
        unpublished = worlds.push_of(rng)
        store.shard.push("fm", "click", worlds.causes([2]), unpublished)
        store.snapshot()
    with worlds.store(tmp_path) as store:
        topic.sent.clear()
        Publisher(store.shard, topic, lambda: 77).run_pass()
        assert {int(key) for _, _, r in topic.sent for key in keys_in(r)} == set(unpublished["weights"][0].tolist())


def test_blocks_say_the_newest_cause_and_a_replica_answers_with_it(tmp_path):
    seen, sent = [], []
    with worlds.store(tmp_path) as store:
        tables = worlds.push_of(np.random.default_rng(1))
        store.shard.push("fm", "click", worlds.causes([1, 2]), tables, Newest(7, 0, 2, 900))
        store.shard.push("fm", "click", worlds.causes([3]), tables, Newest(7, 0, 3, 800))  # late: the newer one stays
        Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1000).run_pass()
        assert store.shard.push("fm", "click", worlds.causes([3]), tables, Newest(7, 0, 3, 2000)).status == "duplicate"
        assert store.shard.newest["fm"] == Newest(7, 0, 2, 900)
    assert sent and all(record["newest"] == {"source": 7, "partition": 0, "offset": 2, "ts_ms": 900} for record in sent)
    replica = Replica([worlds.spec()], 1, 5000, lambda: 1000, seen.append)
    replica.fold_many(sent)
    assert replica.newest["fm"] == Newest(7, 0, 2, 900) and set(seen) == {Newest(7, 0, 2, 900)}


@pytest.mark.parametrize("going", [{}, {"ttl_s": 2}])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_changes_while_a_pass_is_on_its_way_comes_in_a_later_one(tmp_path_factory, going, seed):
    """Rows that are pushed again, that go, and that go and come again between taking and the broker's word; and passes that fail."""
    rng, sent, turn = np.random.default_rng(seed), [], [0]
    with worlds.store(tmp_path_factory.mktemp("shard"), [worlds.spec(**going)]) as store:
        replica = Replica([worlds.spec()], 1, 5000, lambda: 1)

        def push():
            turn[0] += 1
            store.shard.push("fm", "click", worlds.causes([turn[0]]), worlds.push_of(rng, space=60),
                             Newest(7, 0, turn[0], 1000 * (turn[0] // 2)))
            store.shard.sweep()

        def meanwhile():
            for _ in range(rng.integers(0, 3)):
                push()
            if rng.random() < 0.2:
                raise TimeoutError("not acknowledged")

        publisher = Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1, meanwhile)
        for _ in range(30):
            push()
            with contextlib.suppress(TimeoutError):
                publisher.run_pass()
        last = Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1)
        while last.run_pass():
            pass
        last.run_pass()
        replica.fold_many(sent)
        held, there = (table.stored().keys for table in (replica.table("fm", "weights"), store.shard.tables["fm", "weights"]))
        assert set(held.tolist()) == set(there.tolist())
        assert (replica.pull("fm", "weights", there) == store.shard.pull("fm", "weights", there)).all()
        assert replica.counts["gaps"] == 0 and (store.shard.removed["ttl"] > 0) == bool(going)


def test_a_broker_that_is_away_holds_up_no_push(tmp_path):
    """The pass waits for the broker outside of the shard's turn."""
    waits, back, owner = threading.Event(), threading.Event(), Owner("shard")
    owner.start()

    def flush():
        waits.set()
        assert back.wait(60)

    with worlds.store(tmp_path) as store:
        rng, over = np.random.default_rng(0), threading.Event()
        store.shard.push("fm", "click", worlds.causes([0]), worlds.push_of(rng))
        publisher = Publisher(store.shard, lambda topic, key, record: None, lambda: 1, flush, owner.call)
        thread = threading.Thread(target=publisher.keep_publishing, args=(0.001, over))
        thread.start()
        assert waits.wait(60)
        for i in range(1, 20):
            assert owner.call(lambda i=i: store.shard.push("fm", "click", worlds.causes([i]), worlds.push_of(rng))).status == "applied"
        back.set()
        while owner.call(lambda: len(store.shard.tables["fm", "weights"].changed())):
            pass
        over.set()
        thread.join()
    owner.stop()
