"""Two members in processes of their own, which are stopped, continued and killed by their ids while a client pushes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from headrace.ps.client import ParameterClient
from headrace.ps.owners import Owners
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError
from tests.ps import worlds
from tests.ps.test_roles import free_ports
from tests.ps.test_standby import until

KEYS = np.arange(200, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


class Two:
    def __init__(self, folder):
        self.folder, self.ports = folder, free_ports(4)
        self.log = worlds.FileLog(folder / "owners")
        self.processes = {}
        self.client = ParameterClient([f"127.0.0.1:{self.ports[0]}|127.0.0.1:{self.ports[1]}"], timeout_s=90.0)
        self.offset = 0

    def start(self, index):
        command = [sys.executable, "-m", "tests.ps.member_process", str(self.folder), str(index), *map(str, self.ports)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "up\n"
        self.processes[index] = process

    def kill(self, index, number=signal.SIGKILL):
        os.kill(self.processes[index].pid, number)
        if number == signal.SIGKILL:
            self.processes[index].wait(30)

    def push(self):
        self.offset += 1
        tables = {"counts": (KEYS, np.ones((len(KEYS), 1), np.int64))}
        self.client.push("fm", "click", worlds.causes([self.offset]), lambda index: tables)

    def counted(self):
        return set(self.client.pull("fm", "counts", KEYS)[0].reshape(-1).tolist())

    def stats(self, index):
        client = Client(f"127.0.0.1:{self.ports[index]}", 5.0)
        try:
            return client.call("stats")[0]
        except RpcError:
            return {}
        finally:
            client.close()

    def owner(self):
        return Owners(self.log, "0/1").now()

    def owning(self):
        return 1 if self.owner().member == "0-standby" else 0

    def together(self):
        """Both up, one owns the shard and says that the other, which follows it, is in sync. What the owners' log said of a member that
        was killed since is not enough. A member that ended to begin from a copy (it fell behind the snapshots on a busy machine) is
        started again, as a supervisor does."""
        def both():
            for index, process in list(self.processes.items()):
                if process.poll() == 3:
                    process.communicate()
                    self.start(index)
            if self.owner() is None or not self.owner().in_sync:
                return False
            owning = self.owning()
            owner, other = self.stats(owning), self.stats(1 - owning)
            return owner.get("owns") and owner.get("in_sync") and other.get("missing") == "" and not other.get("owns")

        until(both, "the standby in sync")

    def close(self):
        self.client.close()
        for process in self.processes.values():
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
            process.communicate()


@contextmanager
def two(folder):
    made = Two(folder)
    try:
        made.start(0)
        made.start(1)
        made.together()
        yield made
    finally:
        made.close()


def test_an_owner_that_was_stopped_and_continues_is_fenced_off_and_nothing_acknowledged_is_lost(tmp_path):
    with two(tmp_path) as held:
        for _ in range(10):
            held.push()
        # A push that is on its way into the owner when it is stopped: what it answers when it goes on is what must not be lost.
        late, heard = Client(f"127.0.0.1:{held.ports[0]}", 60.0), []

        def push_late():
            try:
                heard.append(late.call("push", {"model": "fm", "effect": "click"}, {
                    **worlds.causes([5000])._asdict(), "counts.keys": KEYS, "counts.grads": np.ones((len(KEYS), 1), np.int64)})[0])
            except RpcError as error:
                heard.append(error)

        held.kill(0, signal.SIGSTOP)
        pushing = threading.Thread(target=push_late)
        pushing.start()
        held.push()  # the standby takes over for it
        assert held.owning() == 1
        for _ in range(10):
            held.push()
        held.kill(0, signal.SIGCONT)
        assert held.processes[0].wait(60) == 3, "it learns that it is fenced off, and ends"
        pushing.join()
        late.close()
        assert isinstance(heard[0], RpcError), f"the old owner answered {heard[0]}"
        held.start(0)
        held.together()
        assert held.counted() == {21}
        until(lambda: held.stats(0).get("sequence") == held.stats(1).get("sequence"), "the old owner follows")


def test_acknowledged_pushes_survive_the_loss_of_the_owners_disk(tmp_path):
    with two(tmp_path) as held:
        for _ in range(20):
            held.push()
        held.kill(0)
        shutil.rmtree(tmp_path / "ps" / "0")
        held.push()
        held.start(0)
        held.together()
        assert held.counted() == {21} and held.stats(0)["sequence"] == held.stats(1)["sequence"] == 21


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_of_both_in_turn_count_every_push_once(tmp_path, seed):
    """Whoever is killed, the other one is in sync then; pushes go on all the while."""
    rng = np.random.default_rng(seed)
    with two(tmp_path) as held:
        done = threading.Event()

        def push():
            while not done.is_set():
                held.push()

        pushing = threading.Thread(target=push)
        pushing.start()
        try:
            for _ in range(5):
                held.together()
                before, index = held.offset, int(rng.integers(2))
                until(lambda before=before: held.offset > before + 20, "pushes go on")
                held.kill(index)
                owner = held.owner()
                # A standby that a busy machine has let take over since `together` may have owned it alone: then nobody may go on.
                safe = owner.in_sync or owner.member != ("0-standby" if index else "0")
                if rng.random() < 0.5 and safe:
                    until(lambda before=before: held.offset > before + 40, "pushes go on without it")
                held.start(index)
        finally:
            done.set()
            pushing.join()
        assert held.counted() == {held.offset}
        held.together()
        until(lambda: held.stats(0).get("sequence") == held.stats(1).get("sequence"), "both have the same")
