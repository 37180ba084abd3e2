"""Two members of a shard in this process, over real servers and an owners' log in memory."""

import json
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from headrace.ps.client import ParameterClient
from headrace.ps.lineage import Begun, Lineage, owner_folder
from headrace.ps.log import Tail
from headrace.ps.member import Member, Terms, opened
from headrace.ps.owners import Owner, Owners
from headrace.ps.recovery import Store
from headrace.ps.service import shard_verbs
from headrace.ps.standby import Place
from headrace.rpc.client import Client
from headrace.rpc.errors import Unavailable
from headrace.rpc.owner import Owner as Turns
from headrace.rpc.server import Server
from tests.ps import worlds
from tests.ps.test_roles import free_ports

KEYS = np.arange(40, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
TERMS = Terms(acknowledge_s=0.3, takeover_s=0.4)


def until(condition, what, deadline_s=60.0):
    ends = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < ends, what
        time.sleep(0.01)
    return found


class One:
    """A member as its process would be: started, asked, ended with or without a word."""

    def __init__(self, pair, name):
        self.pair, self.name, self.ended = pair, name, []
        self.folder, other = pair.folder / name, "0-standby" if name == "0" else "0"
        place = Place(name, other, pair.address(other))
        self.turns = Turns(name)
        owners = Owners(pair.log, "0/1")
        found = opened(self.folder, self._store, place, name == "0", owners)
        self.store = found.store
        self.store.turn = self.turns.call
        self.member = Member(found, place, self.turns, owners, pair.terms, self.ended.append)
        served = shard_verbs(self.store, None, False, self.member.acknowledged)
        self.server = Server("127.0.0.1", pair.ports[name], self.member.verbs(served), self.turns)
        self.turns.start()
        self.member.start()

    def _store(self):
        return Store(self.folder, self.pair.specs, 0, 1, 5000, worlds.RING, self.pair.now_ms)

    @property
    def shard(self):
        return self.store.shard

    def end(self):
        self.member.stop()
        self.server.shutdown()
        self.turns.stop()
        self.store.close()


class Pair:
    """Members "0" and "0-standby" of one shard, on ports of their own."""

    def __init__(self, folder, terms=TERMS):
        self.folder, self.terms, self.log = Path(folder), terms, worlds.ListLog()
        self.specs, self._clock = [worlds.spec()], 1000
        self.ports = dict(zip(("0", "0-standby"), free_ports(2), strict=True))
        self.up, self.offset = {}, 0
        self.client = ParameterClient(["|".join(self.address(name) for name in self.ports)], timeout_s=60.0)

    def now_ms(self):
        self._clock += 1
        return self._clock

    def address(self, name):
        return f"127.0.0.1:{self.ports[name]}"

    def start(self, name):
        self.up[name] = One(self, name)
        return self.up[name]

    def end(self, name):
        self.up.pop(name).end()

    def push(self, pushes=1, rows=40):
        """Pushes that are acknowledged."""
        for _ in range(pushes):
            self.offset += 1
            tables = {"weights": (KEYS[:rows], np.full((rows, 3), 0.1 * self.offset, np.float32)),
                      "counts": (KEYS[:rows], np.ones((rows, 1), np.int64))}
            assert self.client.push("fm", "click", worlds.causes([self.offset]), lambda index, made=tables: made).recut == 0

    def counted(self):
        """How often each key was counted, by whoever owns the shard."""
        return set(self.client.pull("fm", "counts", KEYS)[0].reshape(-1).tolist())

    def in_sync(self):
        return self.owner() is not None and self.owner().in_sync

    def owner(self):
        return Owners(self.log, "0/1").now()

    def close(self):
        self.client.close()
        for name in list(self.up):
            self.end(name)


@contextmanager
def pair(folder, *names, terms=TERMS):
    made = Pair(folder, terms)
    try:
        for name in names:
            made.start(name)
        yield made
    finally:
        made.close()


def together(held):
    until(held.in_sync, "the standby in sync")


def test_what_is_acknowledged_is_with_the_standby_which_takes_over(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(30)
        assert held.up["0-standby"].shard.sequence == 30
        digest = held.up["0"].shard.digest()
        held.end("0")
        held.push(5)  # waits for the standby to own the shard
        assert held.counted() == {35} and held.owner().member == "0-standby" and not held.owner().in_sync
        assert held.up["0-standby"].shard.sequence == 35
        with worlds.store(tmp_path / "0") as alone:
            assert alone.shard.digest() == digest and alone.shard.sequence == 30


def test_a_standby_holds_the_same_bytes_as_its_owner(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(20)
        assert held.up["0"].shard.digest() == held.up["0-standby"].shard.digest()


def test_the_shard_goes_on_without_its_standby_and_takes_it_back(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(3)
        held.end("0-standby")
        held.push(3)
        assert not held.in_sync() and held.up["0"].member.told()["alone"] == 1
        held.start("0-standby")
        together(held)
        held.push(3)
        assert held.up["0-standby"].shard.digest() == held.up["0"].shard.digest() and held.counted() == {9}


def test_a_standby_that_may_lack_something_does_not_take_over_unless_a_person_says_so(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(3)
        held.end("0-standby")
        held.push(3)  # with the owner alone
        held.end("0")
        standby = held.start("0-standby")
        said = until(lambda: "promote" in standby.member.missing() and standby.member.missing(), "the standby says why it does not serve")
        assert "may lack" in said and not standby.member.owns
        with pytest.raises(Unavailable, match="stands by"):
            Client(held.address("0-standby"), 5.0).call("pull", {"model": "fm", "table": "counts"}, {"keys": KEYS})
        assert Owners(held.log, "0/1").say(Owner(held.owner().epoch + 1, "0-standby", False, forced=True))
        held.push(1)
        assert held.counted() == {4}, "three acknowledged ones are lost: a person's word"


def test_an_owner_that_was_taken_over_is_fenced_off_whenever_it_hears_of_it(tmp_path):
    """It hangs (nobody answers at its port), the standby owns the shard, and then a push reaches it that was sent to it before."""
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(4)
        old = held.up["0"]
        port = held.up["0-standby"].server.port
        assert port
        with old.member._tailing:  # it does not answer its standby any more
            until(lambda: held.owner().member == "0-standby", "the standby takes over")
        late = Client(held.address("0"), 10.0)
        with pytest.raises(Unavailable, match=r"fenced off|stands by"):
            late.call("push", {"model": "fm", "effect": "click"}, {
                **worlds.causes([1000])._asdict(), "counts.keys": KEYS, "counts.grads": np.ones((40, 1), np.int64)})
        late.close()
        until(lambda: old.ended, "the old owner is told to start anew")
        held.push(2)
        assert held.counted() == {6}
        held.end("0")
        held.start("0")  # as its supervisor does
        together(held)
        assert held.up["0"].shard.digest() == held.up["0-standby"].shard.digest() and held.counted() == {6}
        assert (tmp_path / "0.before-copy").exists(), "its log had a push that nobody acknowledged"


def test_without_the_owners_log_nothing_is_acknowledged_that_the_standby_lacks(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.end("0-standby")
        held.log.away = True
        with pytest.raises(Unavailable, match="away"):
            ParameterClient([held.address("0")], timeout_s=0.2).push(
                "fm", "click", worlds.causes([1]), lambda index: {"counts": (KEYS, np.ones((40, 1), np.int64))})
        held.log.away = False
        held.push(1)  # the same cause: known already, and acknowledged now
        assert held.counted() == {1}


def test_an_owner_whose_word_that_it_is_in_sync_was_taken_unheard_takes_it_back_before_it_goes_on_alone(tmp_path):
    with pair(tmp_path) as held:
        held.log.mute = lambda record: record["in_sync"]
        held.start("0")
        held.start("0-standby")
        together(held)  # by the log, and the owner does not know
        held.log.mute = lambda record: False
        held.end("0-standby")
        held.push(3)
        assert not held.in_sync(), "a standby that lacks these pushes could take over"


def test_a_claim_that_was_taken_unheard_is_made_again(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(4)
        lost = []
        held.log.mute = lambda record: record["member"] == "0-standby" and not lost and not lost.append(record)
        held.end("0")
        held.push(2)
        assert lost and held.counted() == {6} and held.owner().member == "0-standby" and held.owner().epoch > lost[0]["epoch"]


def test_a_standby_that_is_made_the_owner_while_it_is_down_has_replicas_fetch_everything(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(4)
        for name in ("0-standby", "0"):
            held.end(name)
        assert Owners(held.log, "0/1").say(Owner(held.owner().epoch + 1, "0-standby", False, forced=True))
        standby = held.start("0-standby")
        assert standby.member.owns and standby.shard.superseding


def test_a_disk_that_is_lost_comes_back_as_a_standby(tmp_path):
    import shutil

    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(10)
        held.end("0")
        shutil.rmtree(tmp_path / "0")
        first = held.start("0")  # before the standby has taken over: it must not claim what it does not have
        assert not first.member.owns
        held.push(2)
        together(held)
        assert held.counted() == {12} and held.owner().member == "0-standby"
        assert first.shard.digest() == held.up["0-standby"].shard.digest()


def test_a_standby_that_is_new_begins_from_a_snapshot_when_the_log_has_been_cut(tmp_path):
    with pair(tmp_path, "0") as held:
        for _ in range(3):
            held.push(5)
            held.up["0"].store.written(held.up["0"].shard.sequence)
        assert not (tmp_path / "0" / "log" / f"log-{1:020d}.bin").exists()
        standby = held.start("0-standby")
        together(held)
        held.push(2)
        assert standby.shard.digest() == held.up["0"].shard.digest() and standby.shard.sequence == 17


def test_a_standby_with_a_damaged_folder_begins_anew(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(6)
        held.up["0"].store.written(6)
        held.end("0-standby")
        log = next((tmp_path / "0-standby" / "log").glob("*.bin"))
        data = bytearray(log.read_bytes())
        data[len(data) // 2] ^= 1
        log.write_bytes(data)
        held.push(2)
        held.start("0-standby")
        together(held)
        assert held.up["0-standby"].shard.digest() == held.up["0"].shard.digest()


def test_an_owner_whose_disk_lost_its_end_lets_its_standby_take_over(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        together(held)
        held.push(8)
        held.end("0")
        log = next((tmp_path / "0" / "log").glob("*.bin"))
        with open(log, "r+b") as file:
            file.truncate(log.stat().st_size // 2)
        first = held.start("0")
        assert not first.member.owns
        held.push(1)
        together(held)
        assert held.counted() == {9} and first.shard.digest() == held.up["0-standby"].shard.digest()


def test_each_member_owns_the_shard_in_turn_and_nothing_is_lost(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held:
        for turn in range(4):
            together(held)
            held.push(3)
            owner = held.owner().member
            held.end(owner)
            held.push(3)
            assert held.owner().member != owner
            held.start(owner)
            assert held.counted() == {6 * (turn + 1)}


def test_pushes_in_flight_while_the_owner_ends_count_once(tmp_path):
    with pair(tmp_path, "0", "0-standby") as held, ExitStack() as ends:
        together(held)
        done = threading.Event()

        def push():
            while not done.is_set():
                held.push()

        pushing = threading.Thread(target=push)
        pushing.start()
        ends.callback(pushing.join)
        ends.callback(done.set)
        for _ in range(3):
            together(held)
            before, owner = held.offset, held.owner().member
            until(lambda before=before: held.offset > before + 5, "pushes go on")
            held.end(owner)
            until(lambda owner=owner: held.owner().member != owner, "the other owns the shard")
            held.start(owner)
        done.set()
        pushing.join()
        assert held.counted() == {held.offset}


def test_other_tables_are_not_followed(tmp_path):
    with pair(tmp_path, "0") as held:
        held.push(1)
        held.specs = [worlds.spec(dim=5)]
        standby = held.start("0-standby")
        assert until(lambda: "other tables" in standby.member.missing(), "it says so")
        assert not standby.member.owns and standby.shard.sequence == 0


def test_a_lineage_knows_a_beginning_of_itself(tmp_path):
    line = Lineage(tmp_path)
    line.write([Begun(5, 0, "0"), Begun(9, 100, "0-standby")], False)
    assert Lineage(tmp_path).begun == line.begun
    assert line.holds(5, 100, 150) and line.holds(5, 50, 150) and line.holds(9, 120, 150) and line.holds(-1, 0, 150)
    assert not line.holds(5, 101, 150), "what the first member had beyond was never the shard's"
    assert not line.holds(9, 151, 150) and not line.holds(7, 10, 150) and not line.holds(-1, 3, 150)
    assert (line.epoch_at(99), line.epoch_at(100)) == (5, 9)
    line.keep_what_is_so(Owner(9, "0", True))  # the claim of 9 was another's
    assert line.begun == [Begun(5, 0, "0")]


def test_the_folder_of_the_last_owner_is_found(tmp_path):
    assert owner_folder(tmp_path, 0) == tmp_path / "0"
    for name, epoch in (("0", 7), ("0-standby", 9)):
        (tmp_path / name).mkdir()
        Lineage(tmp_path / name).write([Begun(epoch, 0, name)], False)
    assert owner_folder(tmp_path, 0) == tmp_path / "0-standby"


def test_a_tail_gives_what_a_log_holds_across_segments_and_no_more(tmp_path):
    with worlds.store(tmp_path) as store:
        rng = np.random.default_rng(3)
        tail, after, found = Tail(tmp_path / "log"), 0, []
        from headrace.ps import log as shard_log

        for number in range(1, 40):
            store.shard.push("fm", "click", worlds.causes([number]), worlds.push_of(rng, rows=int(rng.integers(1, 60))))
            if number % 11 == 0:
                store.shard.log.rotate(store.shard.sequence + 1)
            if number % 3 == 0:
                while after < number:
                    data = tail.read(after, number, int(rng.integers(1, 5000)))
                    records = list(shard_log.frames(memoryview(data), after))
                    found += [record.sequence for record in records]
                    after = records[-1].sequence
        assert found == list(range(1, 40)) and tail.read(39, 39, 100) == b""
        store.shard.log.prune(22)
        again = Tail(tmp_path / "log")
        assert again.read(31, 33, 100_000)
        store.shard.push("fm", "click", worlds.causes([40]), worlds.push_of(rng))
        store.shard.log.prune(33)  # what was read to its end goes, as a snapshot has it
        assert [one.sequence for one in shard_log.frames(memoryview(again.read(33, 40, 1)), 33)] == [34]
        assert tail.read(5, 39, 100) is None and Tail(tmp_path / "log").read(35, 36, 100)


def test_member_json_is_what_it_says(tmp_path):
    with pair(tmp_path, "0") as held:
        body = json.loads((tmp_path / "0" / "member.json").read_text())
        assert [one[2] for one in body["begun"]] == ["0"] and body["begun"][0][0] == held.owner().epoch
