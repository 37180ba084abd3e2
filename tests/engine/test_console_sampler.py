"""The sampler asks only while somebody looks, source by source, and keeps little."""

import threading
import time

from headrace.engine.console.sampler import NOTHING, Away, Sampler


def until(condition, seconds=10.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


class Source:
    def __init__(self):
        self.asked, self.error, self.gate = 0, None, threading.Event()
        self.gate.set()

    def __call__(self):
        self.asked += 1
        self.gate.wait(20)
        if self.error:
            raise self.error
        return self.asked, {"n": float(self.asked)}


def test_nothing_is_asked_before_somebody_looks_and_after_everybody_left():
    source = Source()
    sampler = Sampler({"a": source}, every_s=0.01, idle_s=0.2)
    assert sampler.newest("a") == NOTHING and not sampler.awake
    time.sleep(0.05)
    assert source.asked == 0
    sampler.watch()
    until(lambda: source.asked > 3)
    until(lambda: not sampler.awake)
    asked = source.asked
    assert not [thread for thread in threading.enumerate() if thread.name == "console-a"]
    time.sleep(0.05)
    assert source.asked == asked and sampler.newest("a").value == asked
    sampler.watch()  # somebody comes back
    until(lambda: source.asked > asked)
    sampler.stop()
    assert not sampler.awake
    sampler.watch()
    assert not sampler.awake


def test_looking_on_keeps_it_awake():
    source = Source()
    sampler = Sampler({"a": source}, every_s=0.01, idle_s=0.3)
    for _ in range(10):
        sampler.watch()
        time.sleep(0.06)
        assert sampler.awake and len([thread for thread in threading.enumerate() if thread.name == "console-a"]) == 1
    sampler.stop()


def test_one_that_hangs_holds_no_other_up_and_is_left_behind_at_the_end():
    stuck, other = Source(), Source()
    stuck.gate.clear()
    sampler = Sampler({"stuck": stuck, "other": other}, every_s=0.01, idle_s=5.0)
    sampler.watch()
    until(lambda: other.asked > 5)
    assert stuck.asked == 1 and sampler.newest("stuck") == NOTHING
    began = time.monotonic()
    sampler.stop(wait_s=0.1)
    assert time.monotonic() - began < 2
    stuck.gate.set()
    until(lambda: not sampler.awake)


def test_points_are_bounded_and_a_failure_keeps_what_was_known():
    source = Source()
    sampler = Sampler({"a": source}, every_s=0.001, idle_s=5.0, points_max=7)
    sampler.watch()
    until(lambda: source.asked > 20)
    source.error = Away("gone")
    until(lambda: sampler.newest("a").problem == "gone")
    known = sampler.newest("a")
    assert known.value > 20 and known.at_ms > 0 and len(sampler.points("a")) == 7
    source.error = KeyError("a defect")
    until(lambda: "A defect" in sampler.newest("a").problem)
    source.error = None
    until(lambda: not sampler.newest("a").problem)
    sampler.stop()
