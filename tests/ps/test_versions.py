"""Published versions: files that are what they were or are refused, and a replica that answers each pull from one version."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.ps import versions
from headrace.ps.publish import Publisher
from headrace.ps.replica import Replica
from headrace.ps.service import shard_verbs
from headrace.ps.versioned import Versioned
from headrace.ps.versions import LIVE, Choice, VersionError
from headrace.rpc.client import Client
from headrace.rpc.errors import BadMessage, Refused, Unavailable
from headrace.rpc.owner import Owner
from headrace.versions import EVENTS, NotServed, Versions, VersionUnknown
from tests.ps import worlds

KEYS = np.arange(300, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # of worlds.push_of, known and unknown
SPEC = worlds.spec()


class Clock:
    def __init__(self):
        self.ms = 1000

    def __call__(self):
        self.ms += 1
        return self.ms


class Stack:
    """Two shards behind Flight, and replicas that fold what they publish, each behind Flight of its own."""

    def __init__(self, folder, replicas=2):
        self.folder, self.now_ms, self.rng, self.turn = folder, Clock(), np.random.default_rng(3), 0
        self.sent, self.made, self.closing = [], [], []
        self.stores = [self.entered(worlds.store(folder / "ps" / str(i), [SPEC], i, 2)) for i in range(2)]
        self.shards = [self.client(self.serve_shard(store)) for store in self.stores]
        self.publishers = [Publisher(store.shard, lambda topic, key, record: self.sent.append(record), self.now_ms)
                           for store in self.stores]
        for _ in range(replicas):
            self.start_replica()

    def entered(self, context):
        self.closing.append(context)
        return context.__enter__()

    def serve_shard(self, store):
        server, owner = self.entered(worlds.served(shard_verbs(store)))
        store.turn = owner.call
        return server.port

    def client(self, port):
        client = Client(f"127.0.0.1:{port}", 5.0)
        self.made.append(client)
        return client

    def start_replica(self):
        follower = Replica([SPEC], 2, 5000, self.now_ms)
        follower.fold_many(self.sent)
        versioned = Versioned(follower, [SPEC], self.folder / "versions", 5000, self.now_ms)
        server, owner = self.entered(worlds.served(versioned.verbs()))
        self.replicas = [*getattr(self, "replicas", []), (follower, versioned, owner, self.client(server.port))]
        return self.replicas[-1]

    @property
    def versions(self):
        return Versions(self.folder / "versions", SPEC, [client for *_, client in self.replicas], self.now_ms)

    def learn(self):
        """A push to each shard, published and folded by every replica; the live weights of KEYS."""
        self.turn += 1
        parts = worlds.push_of(self.rng)
        for store, publisher in zip(self.stores, self.publishers, strict=True):
            first, stop = store.shard.slots
            slot = versions.kernels.slots_of(versions.kernel_input(parts["weights"][0]))
            at = (slot >= first) & (slot < stop)
            store.shard.push("fm", "click", worlds.causes([self.turn]), {n: (k[at], g[at]) for n, (k, g) in parts.items()})
            before = len(self.sent)
            publisher.run_pass()
            for follower, _, owner, _ in self.replicas:
                owner.call(lambda follower=follower, before=before: follower.fold_many(self.sent[before:]))
        return self.pull(self.replicas[0][3], version=LIVE)[1]

    def publish(self, note=""):
        return self.versions.publish(self.shards, "person", note)

    @staticmethod
    def pull(client, **header):
        told, arrays = client.call("pull", {"model": "fm", "table": "weights", **header}, {"keys": KEYS})
        return told["version"], arrays["values"]

    def close(self):
        for client in self.made:
            client.close()
        for context in reversed(self.closing):
            context.__exit__(None, None, None)


@pytest.fixture
def stack(tmp_path):
    made = Stack(tmp_path)
    yield made
    made.close()


def test_a_version_is_what_was_live_and_stays_so_while_live_learns(stack):
    held = [stack.learn() for _ in range(5)][-1]
    made = stack.publish("before")
    assert (made.number, made.note, made.rows["weights"]) == (1, "before", sum(len(s.shard.tables["fm", "weights"]) for s in stack.stores))
    assert made.sequence == [5] * 64 and len(set(made.epoch)) == 1
    now = stack.learn()
    assert not np.array_equal(held, now)
    clients = [client for *_, client in stack.replicas]
    assert [stack.pull(client)[0] for client in clients] == [LIVE, LIVE]
    changed = stack.versions.serve(1, "person", "to see")
    assert (changed.before, changed.absent, changed.choice.turn) == (LIVE, [], 1)
    later = stack.learn()
    for client in clients:
        number, values = stack.pull(client)
        assert number == 1 and np.array_equal(values, held)
        assert np.array_equal(stack.pull(client, version=LIVE)[1], later)  # its shadow goes on
    stack.versions.serve(LIVE, "person", "back")
    for client in clients:
        number, values = stack.pull(client)
        assert number == LIVE and np.array_equal(values, later)
    assert [one["event"] for one in stack.versions.events()] == ["published", "serving", "serving"]


def test_a_pull_may_ask_for_a_version_and_is_refused_one_that_is_not_held(stack):
    stack.learn()
    stack.publish()
    client = stack.replicas[0][3]
    with pytest.raises(Refused, match="version 1 of fm/weights is not held here; held are 0"):
        stack.pull(client, version=1)
    for wrong in ("1", -1, 1.5):
        with pytest.raises(BadMessage, match="0 is live"):
            stack.pull(client, version=wrong)
    client.call("prepare", {"model": "fm", "version": 1})
    assert stack.pull(client, version=1)[0] == 1 and stack.pull(client)[0] == LIVE  # prepared is not served
    with pytest.raises(Refused, match="no model 'lr'"):
        client.call("prepare", {"model": "lr", "version": 1})
    with pytest.raises(Refused, match="there is no version 7"):
        client.call("prepare", {"model": "fm", "version": 7})
    with pytest.raises(Refused, match="not prepared"):
        client.call("serve", {"model": "fm", "choice": {"version": 5, "turn": 9}})


def test_every_pull_during_changes_is_of_one_version(stack):
    held = {LIVE: None}
    for number in (1, 2):
        held[number] = [stack.learn() for _ in range(3)][-1]
        stack.publish()
    live = stack.learn()
    client, seen, ended, failed = stack.client(int(stack.replicas[0][3].address.split(":")[1])), [], threading.Event(), []

    def work():
        try:
            while not ended.is_set():
                number, values = stack.pull(client)
                assert np.array_equal(values, live if number == LIVE else held[number])
                seen.append(number)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    for turn in range(30):
        before = len(seen)
        stack.versions.serve((1, 2, LIVE)[turn % 3], "person", "turn")
        while len(seen) < before + 2 and thread.is_alive():
            time.sleep(0.001)
    ended.set()
    thread.join()
    assert not failed and set(seen) == {LIVE, 1, 2}


def test_none_serves_what_one_cannot_load(stack):
    """The second replica has no room: it says so at the first step, and the first replica, which could, stays where it is."""
    stack.learn()
    stack.publish()
    stack.replicas[1][1]._rows_max = 1
    with pytest.raises(NotServed, match=r"none does, and nothing has changed: .*ps\.rows_max"):
        stack.versions.serve(1, "person", "to see")
    assert [stack.pull(client)[0] for *_, client in stack.replicas] == [LIVE, LIVE]
    assert stack.versions.choice() == Choice()


class Dies:
    """A replica's client that dies at a verb, before or after the replica has heard it."""

    def __init__(self, client, verb, heard):
        self.client, self.verb, self.heard, self.address = client, verb, heard, client.address

    def call(self, verb, header=None, arrays=None):
        if verb == self.verb:
            if self.heard:
                self.client.call(verb, header, arrays)
            raise Unavailable(f"{self.address} has died")
        return self.client.call(verb, header, arrays)


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("verb", ["prepare", "serve"])
def test_a_replica_that_dies_between_the_steps_comes_back_with_what_was_chosen(stack, verb, heard):
    held = stack.learn()
    stack.publish()
    stack.learn()
    one, two = (client for *_, client in stack.replicas)
    over = Versions(stack.folder / "versions", SPEC, [one, Dies(two, verb, heard)], stack.now_ms)
    assert over.serve(1, "person", "to see").absent == [two.address]
    number, values = stack.pull(one)
    assert number == 1 and np.array_equal(values, held)
    number, values = stack.pull(stack.start_replica()[3])  # as the supervisor starts it again
    assert number == 1 and np.array_equal(values, held)
    _, versioned, owner, _ = stack.replicas[1]
    versioned.follow(owner)  # the one that was alive, and not reached
    number, values = stack.pull(two)
    assert number == 1 and np.array_equal(values, held)


def test_a_coordinator_that_dies_after_prepare_has_changed_nothing_and_after_the_choice_everything(stack):
    held = stack.learn()
    stack.publish()
    for *_, client in stack.replicas:
        client.call("prepare", {"model": "fm", "version": 1})
    for _, versioned, owner, client in stack.replicas:
        versioned.follow(owner)
        assert stack.pull(client)[0] == LIVE
    with versions.changing(stack.versions.root):
        versions.choose(stack.versions.root, Choice(1, 1, False, "person", "", 1))
    for _, versioned, owner, client in stack.replicas:
        versioned.follow(owner)
        number, values = stack.pull(client)
        assert number == 1 and np.array_equal(values, held)


def test_nobody_answering_changes_nothing(stack):
    stack.learn()
    stack.publish()
    over = Versions(stack.folder / "versions", SPEC, [Dies(client, "prepare", False) for *_, client in stack.replicas], stack.now_ms)
    with pytest.raises(NotServed, match="no replica answers"):
        over.serve(1, "person", "to see")
    assert over.choice() == Choice()


def test_an_earlier_choice_that_comes_late_is_not_taken(stack):
    stack.learn()
    stack.publish()
    stack.versions.serve(1, "person", "one")
    stack.versions.serve(LIVE, "person", "two")
    client = stack.replicas[0][3]
    client.call("prepare", {"model": "fm", "version": 1})
    assert client.call("serve", {"model": "fm", "choice": {"version": 1, "turn": 1}})[0]["version"] == LIVE
    assert stack.pull(client)[0] == LIVE


def test_a_replica_refuses_to_serve_another_version_than_the_one_chosen(stack):
    stack.learn()
    made = stack.publish()
    stack.versions.serve(1, "person", "to see")
    path = stack.versions.root / "1" / next(name for name, said in made.files.items() if said["bytes"])
    raw = bytearray(path.read_bytes())
    raw[3] ^= 1
    path.write_bytes(raw)
    _, versioned, owner, client = stack.start_replica()
    assert "version 1" in versioned.trouble() and "sha256" in versioned.trouble()
    with pytest.raises(Unavailable, match=r"what was chosen of fm cannot be served: version 1 in .* is broken"):
        stack.pull(client)
    assert stack.pull(client, version=LIVE)[0] == LIVE  # shadows may still ask
    stack.versions.serve(LIVE, "person", "mended")
    versioned.follow(owner)
    assert stack.pull(client)[0] == LIVE and versioned.trouble() == ""


def files_of(root, number):
    return sorted(path for path in (root / str(number)).iterdir())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_and_any_missing_or_short_file_is_refused_by_name(tmp_path_factory, data):
    """Whatever byte of whatever file: never served, and the message names the version."""
    root, _ = PUBLISHED.made(tmp_path_factory)
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(root / "1", copy / "1")
    path = data.draw(st.sampled_from(files_of(copy, 1)))
    raw = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["flip", "missing", "short", "long"]))
    if how == "missing":
        path.unlink()
    elif how == "long":
        if path.name == "manifest.json":
            return  # what follows its two lines is nothing
        path.write_bytes(raw + b"\0")
    elif not raw:
        return
    elif how == "short":
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 2))])
    else:
        at = data.draw(st.integers(0, len(raw) - (2 if path.name == "manifest.json" else 1)))
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(raw)
    with pytest.raises(VersionError, match="version 1"):
        versions.load(copy, 1, SPEC, 5000)


class Published:
    """One version, made once."""

    root = None

    def made(self, factory):
        if self.root is None:
            stack = Stack(factory.mktemp("published"), 1)
            for _ in range(4):
                self.held = stack.learn()
            stack.publish()
            stack.close()
            self.root = stack.folder / "versions" / "fm"
        return self.root, self.held


PUBLISHED = Published()


def test_a_copy_of_the_folder_elsewhere_is_the_version(tmp_path_factory):
    root, held = PUBLISHED.made(tmp_path_factory)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(root / "1", elsewhere / "1")
    made, tables = versions.load(elsewhere, 1, SPEC, 5000)
    assert np.array_equal(tables["weights"].pull(KEYS), held)
    assert made == versions.about(root, 1)


@pytest.mark.parametrize("foreign", [worlds.spec(version=2), worlds.spec(dim=4), worlds.spec(init_scale=0.2), replace(SPEC, model="lr")])
def test_a_foreign_spec_is_refused(tmp_path_factory, foreign):
    root, _ = PUBLISHED.made(tmp_path_factory)
    with pytest.raises(VersionError, match="publish a new one"):
        versions.load(root, 1, foreign, 5000)


def test_the_optimizer_may_change_between_versions(tmp_path_factory):
    """A version holds weights: how they were learnt does not matter to who serves them."""
    root, held = PUBLISHED.made(tmp_path_factory)
    assert np.array_equal(versions.load(root, 1, worlds.spec(optimizer="ftrl"), 5000)[1]["weights"].pull(KEYS), held)


def test_a_write_that_fails_leaves_nothing_and_a_number_is_never_given_twice(stack, monkeypatch):
    stack.learn()
    with monkeypatch.context() as broken:
        broken.setattr(versions, "seal", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            stack.publish()
    assert versions.numbers(stack.versions.root) == []
    assert [stack.publish().number for _ in range(2)] == [1, 2]
    (stack.versions.root / "2").rename(stack.versions.root / "2.broken")
    (stack.versions.root / ".writing-3").mkdir()  # of a publisher that was killed
    assert stack.publish().number == 4


def test_the_sentences_of_what_is_asked_wrongly(stack):
    over = stack.versions
    with pytest.raises(VersionUnknown, match="none was published: `headrace models publish` makes one"):
        over.serve(3, "person", "")
    with pytest.raises(VersionUnknown, match="no version of fm is older than the one that is served"):
        over.back()
    stack.learn()
    for _ in range(3):
        stack.publish()
    with pytest.raises(VersionUnknown, match="there are 1, 2, 3, and live"):
        over.serve(9, "person", "")
    assert over.back() == 3
    over.serve(3, "person", "")
    assert over.back() == 2
    with pytest.raises(VersionError, match="version 3 is served: it stays"):
        over.remove(3, "")
    over.remove(2, "too many")
    assert over.back() == 1
    (over.root / "1" / "manifest.json").write_text("{}\n0\n")
    assert [one.number for one in over.there()[0]] == [3] and "version 1" in over.there()[1][1]
    with pytest.raises(VersionError, match=r"version 1 .* is broken"):
        over.serve(1, "person", "")


def test_an_unreadable_choice_is_said_and_overruled(stack):
    stack.learn()
    stack.publish()
    stack.versions.serve(1, "person", "")
    (stack.versions.root / "serving.json").write_text("{")
    _, versioned, owner, client = stack.start_replica()
    with pytest.raises(Unavailable, match="rollback live"):
        stack.pull(client)
    stack.versions.serve(LIVE, "person", "")
    versioned.follow(owner)
    assert [stack.pull(client)[0] for *_, client in stack.replicas] == [LIVE] * 3


def test_pins_and_events_survive_and_a_torn_line_is_passed_over(stack):
    stack.learn()
    stack.publish()
    stack.versions.serve(1, "person", "hold", pinned=True)
    assert stack.versions.choice().pinned
    choice = stack.versions.resume("person", "go on")
    assert (choice.version, choice.pinned) == (1, False) and [stack.pull(client)[0] for *_, client in stack.replicas] == [1, 1]
    with open(stack.folder / "versions" / EVENTS, "a") as file:
        file.write('{"event": "torn')
    assert [one["event"] for one in stack.versions.events()] == ["published", "serving", "resumed"]
    assert stack.versions.events(1)[0]["reason"] == "go on"
    said = stack.versions.served()
    assert [one["version"] for one in said.values()] == [1, 1]


def test_a_killed_publisher_leaves_no_version(tmp_path):
    """kill -9 while it writes: what is there is whole."""
    root = tmp_path / "versions" / "fm"
    code = ("import sys, numpy as np; from pathlib import Path; from headrace.ps import versions; from tests.ps import worlds;"
            "keys = np.arange(200_000, dtype=np.uint64); rows = np.ones((len(keys), 3), np.float32);"
            "spec = versions.served_of(worlds.spec()); cut = versions.Cut(1, 1, (0, 64), {'weights': (keys, rows)});"
            "print('go', flush=True)\n"
            "while True: versions.write(Path(sys.argv[1]), spec, [cut], 1)")
    child = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, cwd=os.getcwd())
    assert child.stdout.readline() == b"go\n"
    while not list(root.glob("2")):
        assert child.poll() is None
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    found = versions.numbers(root)
    assert len(found) >= 2
    for number in found:
        assert len(versions.load(root, number, SPEC, 300_000)[1]["weights"]) == 200_000


def test_the_manifest_says_what_people_ask(tmp_path_factory):
    root, _ = PUBLISHED.made(tmp_path_factory)
    body = json.loads((root / "1" / "manifest.json").read_text().splitlines()[0])
    assert {"model", "number", "spec", "created_ms", "sequence", "epoch", "rows", "files", "by", "note", "metrics", "format"} == set(body)
    assert len(body["sequence"]) == len(body["epoch"]) == 64 and len(body["files"]) == 16


def test_following_takes_a_choice_by_itself(stack):
    stack.learn()
    stack.publish()
    _, versioned, owner, client = stack.replicas[0]
    stop = threading.Event()
    thread = threading.Thread(target=versioned.keep_following, args=(owner, stop, 0.01))
    thread.start()
    with versions.changing(stack.versions.root):
        versions.choose(stack.versions.root, Choice(1, 1, False, "person", "", 1))
    until = time.monotonic() + 60
    while stack.pull(client)[0] != 1 and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert stack.pull(client)[0] == 1


def test_owner_is_not_held_while_a_version_is_loaded(stack, monkeypatch):
    """Pulls go on while files are read: the first step runs outside of the replica's turn."""
    stack.learn()
    stack.publish()
    _, _, owner, client = stack.replicas[0]
    assert isinstance(owner, Owner)
    inside, go = threading.Event(), threading.Event()
    really = versions.load

    def slowly(*arguments):
        inside.set()
        assert go.wait(60)
        return really(*arguments)

    monkeypatch.setattr(versions, "load", slowly)
    other = stack.client(int(client.address.split(":")[1]))
    thread = threading.Thread(target=lambda: client.call("prepare", {"model": "fm", "version": 1}))
    thread.start()
    assert inside.wait(60)
    assert stack.pull(other)[0] == LIVE
    go.set()
    thread.join()
