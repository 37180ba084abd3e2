"""The page's queue over a lake of files and labels in memory."""

import time

import pytest

from headrace.config import Config
from headrace.engine.console.sampler import Away
from headrace.labels import live
from headrace.labels.label import Label
from headrace.live import labelling
from headrace.live.labelling import Labelling
from tests.headrace.labels.test_labels import label
from tests.headrace.lake import worlds


class Sink:
    def __init__(self, config):
        self.put_, self.broken = [], False

    def put(self, labels):
        if self.broken:
            raise live.kafka.Undelivered("the broker is away")
        self.put_.extend(labels)

    def close(self):
        pass


@pytest.fixture
def queue(tmp_path, monkeypatch):
    records = [worlds.sample(n) | {"item_id": f"i{n}", "model": "fm", "version": 1, "score": n / 8} for n in range(9)]
    source = worlds.ListTopic(records)
    worlds.drain(worlds.writer(tmp_path / "lake", source), source)
    monkeypatch.setattr(live, "Sink", Sink)
    monkeypatch.setattr(live, "held", lambda config: [label("i5", labeller="bob", target="click")])
    made = Labelling(Config(lake={"dir": tmp_path / "lake"}))
    yield made
    made.close()


def soon(ask):
    """What `ask` gives once the lake was read."""
    ends = time.monotonic() + 30
    while True:
        try:
            return ask()
        except Away as error:
            assert "being read" in str(error) and time.monotonic() < ends
            time.sleep(0.01)


def test_each_labeller_has_what_is_uncertain_and_new_to_them(queue):
    first = soon(lambda: queue.next("ann"))
    assert (first.item, first.bits, first.exposures, first.labelled, first.behind) == ("i4", 1.0, 1, 0, 8)
    queue.put("ann", "i4", 0.0)
    assert queue.next("ann").item == "i3" and queue.next("bob").item == "i4" and queue.next("bob").labelled == 1
    assert [(one.unit.item_id, one.label, one.labeller) for one in queue._sink.put_] == [("i4", 0.0, "ann")]
    queue.put("ann", "i3", None)
    assert queue.next("ann").item == "i5" and queue.next("ann").labelled == 1 and queue.next("bob").item == "i4"
    for _ in range(7):
        queue.put("ann", queue.next("ann").item, 1.0)
    assert queue.next("ann") is None and isinstance(queue._sink.put_[0], Label)


def test_a_label_that_the_broker_does_not_take_comes_again(queue):
    soon(lambda: queue.next("ann"))
    queue.put("ann", "i4", 1.0)
    queue._sink.broken = True
    with pytest.raises(Away, match="not taken: the broker is away"):
        queue.put("ann", "i3", 1.0)
    assert queue.next("ann").item == "i3"


def test_a_lake_that_is_not_there_is_said_until_there_is_one(tmp_path):
    made = Labelling(Config(lake={"dir": tmp_path / "none"}))
    with pytest.raises(Away):
        made.next("ann")
    made._reading.join(30)
    with pytest.raises(Away, match="there is no lake"):
        made.next("ann")


def test_an_object_store_that_is_away_is_said(bucket, s3):
    made = Labelling(Config(lake={"dir": f"s3://{bucket}/lake"}))
    with s3.away():
        with pytest.raises(Away):
            made.next("ann")
        made._reading.join(60)
    with pytest.raises(Away, match=r"the object store of the lake s3://.* did not list bases"):
        made.next("ann")


def test_it_is_read_again_when_it_is_old_and_of_the_newest_rows(queue, monkeypatch):
    soon(lambda: queue.next("ann"))
    read = []
    monkeypatch.setattr(labelling, "_queue", lambda lake, target: read.append(target) or [])
    queue.next("ann")
    assert not read
    queue._clock_s = lambda: time.monotonic() + 2 * labelling.FRESH_S
    assert queue.next("ann") is not None, "what was read last is shown meanwhile"
    queue._reading.join(30)
    assert read == ["click"]
