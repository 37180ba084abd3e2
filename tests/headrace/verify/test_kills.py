"""The killer against a pretended stack: a state file, and children that really run and are really ended."""

import subprocess
import sys
import threading

import pytest

from headrace import state
from headrace.processes import start_time
from headrace.verify import kills, victims
from headrace.verify.kills import Killer, NotRecovered, by_process
from headrace.verify.victims import WORKER, NoVictim, StackVictims, UnknownProcess, find, is_back, names


class Stack:
    """Children that sleep, started again when they die, as a supervisor would; `revive` False leaves them dead."""

    def __init__(self, folder, children, revive=True):
        self.folder, self.revive = folder, revive
        self.running = {name: self._child() for name in children}
        self.stop = threading.Event()
        self._write()
        self.thread = threading.Thread(target=self._supervise)
        self.thread.start()

    def _child(self):
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def _write(self):
        import os

        rows = {name: {"pid": child.pid, "started": start_time(child.pid), "state": "ready"} for name, child in self.running.items()}
        state.write(self.folder, {"supervisor": {"pid": os.getpid(), "started": start_time(os.getpid())}, "processes": rows})

    def _supervise(self):
        while not self.stop.wait(0.02):
            dead = [name for name, child in self.running.items() if child.poll() is not None]
            if dead and self.revive:
                self.running |= {name: self._child() for name in dead}
                self._write()

    def close(self):
        self.stop.set()
        self.thread.join()
        for child in self.running.values():
            child.kill()
            child.wait()


@pytest.fixture
def stack(tmp_path, request, monkeypatch):
    monkeypatch.setattr(kills, "PAUSE_S", (0.0, 0.01))
    monkeypatch.setattr(StackVictims, "names", lambda self: ["ps-0", "features", "ann"])
    made = Stack(tmp_path, ["ps-0", "features", "ann"], getattr(request, "param", True))
    yield made
    made.close()


def killer(stack, count, seed=1):
    learnt = iter(range(10_000))
    told = []
    made = Killer(StackVictims(stack.folder), count, seed, lambda: 10_000, lambda: next(learnt), told.append)
    made.start()
    made._thread.join(60)
    return made, told


def test_every_planned_kill_is_done_told_and_recovered_from(stack):
    before = {child.pid for child in stack.running.values()}
    done, told = killer(stack, 7)
    assert done.over and done.failed is None
    assert len(done.kills) == len(told) == 7
    assert all(kill.recovered_s is not None and kill.in_flight > 0 for kill in done.kills)
    assert sorted(kill.process for kill in done.kills[:3]) == ["ann", "features", "ps-0"]
    assert len({kill.pid for kill in done.kills}) == 7 and before & {kill.pid for kill in done.kills}
    assert sum(row["kills"] for row in by_process(done.kills).values()) == 7


def test_the_seed_chooses_the_victims(stack):
    first, second, other = ([kill.process for kill in killer(stack, 6, seed)[0].kills] for seed in (1, 1, 4))
    assert first == second != other


@pytest.mark.parametrize("stack", [False], indirect=True)
def test_what_does_not_come_back_fails_the_run(stack, monkeypatch):
    monkeypatch.setattr(kills, "RECOVER_S", 0.5)
    done, _ = killer(stack, 3)
    assert isinstance(done.failed, NotRecovered) and "within" in str(done.failed)


def test_victims_are_the_processes_of_the_moment(tmp_path):
    made = Stack(tmp_path, ["ps-0", "registry"], revive=False)
    try:
        assert names(tmp_path) == ["ps-0", WORKER]
        victim = find(tmp_path, "ps-0", max)
        assert not is_back(tmp_path, victim)
        with pytest.raises(NoVictim, match="Python worker"):
            find(tmp_path, WORKER, max)
        with pytest.raises(NoVictim, match="kafka is not ready"):
            find(tmp_path, "kafka", max)
        victim.kill()
        made.running["ps-0"].wait()
        with pytest.raises(NoVictim, match="ended by itself"):
            victim.kill()
    finally:
        made.close()


def test_only_those_that_are_named_are_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(victims, "names", lambda data_dir: ["ps-0", "features", WORKER])
    assert StackVictims(tmp_path).names() == ["ps-0", "features", WORKER]
    assert StackVictims(tmp_path, ["features", WORKER]).names() == ["features", WORKER]
    with pytest.raises(UnknownProcess, match="feature: this stack has ps-0, features, python-worker"):
        StackVictims(tmp_path, ["feature"]).names()
