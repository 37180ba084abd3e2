"""A record that kills its worker is found and left out; one that only was near a death is not. Workers here are real processes that die."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from headrace.streaming.quarantine import DEATHS_MAX, ROWS_MAX, Quarantine


class World(Exception):
    """No record's fault."""


def run(quarantine, offsets, work, where=0):
    """(offsets that `work` was given in order, {offset: sentence} of the refused)."""
    offsets, refused, seen = np.asarray(offsets, np.int64), {}, []

    def on(rows):
        work(offsets[rows].tolist())
        seen.extend(offsets[rows].tolist())

    quarantine.run(np.full(len(offsets), where, np.int64), offsets, on, lambda row, why: refused.update({int(offsets[row]): why}))
    return seen, refused


def fails_at(*bad):
    def work(offsets):
        for offset in offsets:
            if offset in bad:
                raise KeyError(f"no {offset}")

    return work


def test_what_raises_is_refused_with_its_sentence_and_the_rest_is_done_in_order():
    seen, refused = run(Quarantine(), range(100), fails_at(17, 18, 99))
    assert refused == {bad: f"KeyError: 'no {bad}'" for bad in (17, 18, 99)}
    assert seen == [n for n in range(100) if n not in refused]


def test_the_worlds_errors_pass_through():
    def work(offsets):
        if 5 in offsets:
            raise World("broker away")

    quarantine = Quarantine(world=(World,))
    for _ in range(DEATHS_MAX + 2):
        with pytest.raises(World):
            run(quarantine, range(10), work)
    assert run(quarantine, range(10), lambda offsets: None) == (list(range(10)), {})


def test_when_nothing_gets_through_it_is_not_the_records_at_once_but_ends():
    def work(offsets):
        calls.append(offsets)
        raise KeyError("all")

    calls, quarantine = [], Quarantine()
    for _ in range(DEATHS_MAX):
        calls.clear()
        with pytest.raises(KeyError):
            run(quarantine, range(1000), work)
        assert len(calls) < 50
    with pytest.raises(KeyError):
        assert run(quarantine, range(1000), work)
    refused = run(quarantine, range(1000), lambda offsets: None)[1]
    assert 0 in refused and len(refused) < 20


def test_a_batch_of_one_that_fails_is_refused_after_three_times():
    quarantine = Quarantine()
    for _ in range(DEATHS_MAX):
        with pytest.raises(KeyError):
            run(quarantine, [4], fails_at(4))
    assert "4" not in run(quarantine, [4], fails_at(4))[0] and run(quarantine, [3, 4, 5], fails_at(4))[1].keys() == {4}


def test_more_rows_than_a_mark_holds(tmp_path):
    quarantine = Quarantine(tmp_path)
    n = 2 * ROWS_MAX + 3
    assert run(quarantine, range(n), lambda offsets: None) == (list(range(n)), {})
    quarantine.close()
    assert not list(tmp_path.glob("*.mark"))


def test_a_folder_that_cannot_be_written_costs_the_marks_only(tmp_path):
    (tmp_path / "file").write_text("")
    assert run(Quarantine(tmp_path / "file" / "marks"), range(5), lambda offsets: None)[0] == list(range(5))


WORKER = """
import json, os, signal, sys
import numpy as np
from headrace.streaming.quarantine import Quarantine
folder, deadly, ends = sys.argv[1], set(json.loads(sys.argv[2])), sys.argv[3]
offsets, refused, done = np.arange(100), [], []
def work(rows):
    for row in rows.tolist():
        if row in deadly:
            os._exit(3) if ends == "exit" else os.kill(os.getpid(), signal.SIGKILL)
    done.extend(rows.tolist())
quarantine = Quarantine(folder)
for start in range(0, 100, 25):  # four batches
    rows = np.arange(start, start + 25)
    quarantine.run(np.full(25, 7), offsets[rows], lambda at: work(rows[at]), lambda at, why: refused.append([int(rows[at]), why]))
quarantine.close()
print(json.dumps([done, refused]))
"""


def worker(folder, deadly=(), ends="kill"):
    """What a process made of 100 records, None when it died of one."""
    command = [sys.executable, "-c", WORKER, str(folder), json.dumps(list(deadly)), ends]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3, -signal.SIGKILL), done.stderr
    return json.loads(done.stdout) if done.returncode == 0 else None


@pytest.mark.parametrize("ends", ["kill", "exit"])
def test_a_record_that_kills_three_times_is_refused_and_all_others_are_done(tmp_path, ends):
    for _ in range(DEATHS_MAX):
        assert worker(tmp_path, [31], ends) is None
    for _ in range(2):  # a replay after that refuses it again and dies no more
        done, refused = worker(tmp_path, [31], ends)
        assert done == [n for n in range(100) if n != 31]
        (row, why), = refused
        assert row == 31 and "3 times" in why


def test_two_killers_in_one_batch(tmp_path):
    deaths = 0
    while (found := worker(tmp_path, [30, 44])) is None:
        deaths += 1
        assert deaths <= 2 * DEATHS_MAX
    assert [row for row, _ in found[1]] == [30, 44] and len(found[0]) == 98


def test_who_only_was_near_a_death_is_cleared_when_it_gets_through(tmp_path):
    """A worker killed from outside, again and again, while it has a whole batch: nothing may ever be refused."""
    for _ in range(4):
        assert worker(tmp_path, [10]) is None  # the batch's 25, then 10 alone
        assert worker(tmp_path) == [list(range(100)), []]
    assert json.loads((tmp_path / "deaths.json").read_text()) == []


def test_a_living_workers_marks_are_left_alone(tmp_path):
    held = Quarantine(tmp_path)
    seen = []

    def work(offsets):
        other = Quarantine(tmp_path)  # opens while these are being touched
        seen.append(run(other, [1, 2, 3], lambda offsets: None, where=7))
        other.close()

    run(held, [1, 2, 3], work, where=7)
    held.close()
    assert seen == [([1, 2, 3], {})] and not (tmp_path / "deaths.json").exists()


def test_a_mark_costs_microseconds(tmp_path):
    """Not a matter of seconds but of calls: nothing is written or synced by a system call on the way."""
    quarantine, calls = Quarantine(tmp_path), []

    def profile(frame, event, called):
        if event == "c_call" and getattr(called, "__module__", None) in ("posix", "fcntl", "_io"):
            calls.append(called.__name__)

    offsets = np.arange(1000)
    sys.setprofile(profile)
    try:
        quarantine.run(offsets, offsets, lambda rows: None, lambda row, why: None)
    finally:
        sys.setprofile(None)
    quarantine.close()
    assert calls == []
    assert os.listdir(tmp_path)
