"""The supervisor with toy children: restarts, order, bounds, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from headrace.processes import Child, is_alive, marked, start_time, sweep
from headrace.supervisor import ChildFailed, Supervisor

WRITER = "import signal,sys,time\nsignal.signal(15, lambda *_: (print('{0} ends'), sys.exit()))\nprint('{0}')\ntime.sleep(99)"
PARENT = "import subprocess,sys,time\nsubprocess.Popen([sys.executable,'-c','import time; time.sleep(99)'],start_new_session=True)\n" \
         "print('up', flush=True)\ntime.sleep(99)"


def toy(name, code, ready=lambda: "", **more):
    return Child(name, [sys.executable, "-u", "-c", code], dict(os.environ), ready, **more)


@pytest.fixture
def made(tmp_path):
    """Makes a supervisor whose children are swept whatever happens."""
    supervisors = []

    def make(children, restarts_max=20):
        said = []
        one = Supervisor(f"test-{os.getpid()}-{len(supervisors)}", tmp_path, restarts_max, lambda _: None, said.append)
        supervisors.append(one)
        one.start(children, {}, threading.Event(), 20)
        return one, said

    yield make
    for one in supervisors:
        one.stop()
        assert not list(marked(one.run))


def until(condition, step=lambda: None, seconds=20.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited too long"
        step()
        time.sleep(0.02)


def test_a_child_killed_is_started_again(made):
    one, said = made([toy("echo", WRITER.format("echo"))])
    first = one.processes[0].popen.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: one.processes[0].state == "ready" and one.processes[0].restarts == 1, one.step)
    assert one.processes[0].popen.pid != first
    assert any("ended (signal 9)" in sentence for sentence in said)


def test_what_a_dead_child_leaves_is_ended_before_it_starts_again(made):
    one, _ = made([toy("parent", PARENT)])
    process = one.processes[0]
    until(lambda: len(list(marked(one.run, "parent"))) == 2)
    orphan = next(p for p in marked(one.run, "parent") if p.pid != process.popen.pid)
    process.popen.kill()
    until(lambda: process.restarts == 1 and process.state == "ready", one.step)
    assert not is_alive(orphan.pid, orphan.create_time())


def test_the_last_started_is_stopped_first(made, tmp_path):
    ended = []
    one, _ = made([toy(name, WRITER.format(name)) for name in ("kafka", "engine", "taskmanager")])
    until(lambda: all(name in (tmp_path / f"{name}.log").read_text() for name in ("kafka", "engine", "taskmanager")))
    one._changed = lambda processes: ended.append([p.child.name for p in processes if p.state == "stopped"])
    one.stop()
    assert ended == [["taskmanager"], ["engine", "taskmanager"], ["kafka", "engine", "taskmanager"]]
    assert "engine ends" in (tmp_path / "engine.log").read_text()


def test_a_child_that_ignores_sigterm_is_killed(made):
    deaf = "import signal,time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(99)"
    one, _ = made([toy("deaf", deaf, grace_s=0.3)])
    process = one.processes[0]
    until(process.log.read_text)
    one.stop()
    assert process.popen.returncode == -signal.SIGKILL


def test_a_wave_waits_for_the_one_before(made):
    order = []
    children = [toy("second", WRITER.format("second"), lambda: order.append("second") or "", wave=1),
                toy("first", WRITER.format("first"), lambda: "" if len(order) > 2 else order.append("first") or "wait")]
    made(children)
    assert order == ["first"] * 3 + ["second"]


def test_a_child_that_cannot_live_fails_with_its_last_words(made):
    with pytest.raises(ChildFailed, match=r"(?s)brittle died 3 times.*no luck"):
        made([toy("brittle", "print('no luck'); raise SystemExit(3)", lambda: "not yet")], restarts_max=2)


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path):
    run = f"killed-{os.getpid()}"
    program = textwrap.dedent(f"""
        import os, sys, threading, time
        from pathlib import Path
        from headrace.processes import Child
        from headrace.supervisor import Supervisor
        one = Supervisor({run!r}, Path({str(tmp_path)!r}), 20, lambda _: None, print)
        one.guard(Path({str(tmp_path / "stack.json")!r}))
        child = Child("parent", [sys.executable, "-c", {PARENT!r}], dict(os.environ), lambda: "")
        one.start([child], {{}}, threading.Event(), 20)
        print("ready", flush=True)
        time.sleep(99)
    """)
    (tmp_path / "stack.json").write_text(json.dumps({"run": run}))
    supervisor = subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert any(line == "ready\n" for line in supervisor.stdout)
        until(lambda: len(list(marked(run))) == 2)
        supervisor.kill()
        supervisor.wait()
        until(lambda: not list(marked(run)))
        until(lambda: not (tmp_path / "stack.json").exists())
    finally:
        supervisor.kill()
        supervisor.wait()
        supervisor.stdout.close()
        sweep(run)


def test_a_pid_is_known_by_its_start_time():
    assert is_alive(os.getpid(), start_time(os.getpid()))
    assert not is_alive(os.getpid(), start_time(os.getpid()) - 100)
    assert not is_alive(0, 0.0)
