"""One at a time, in order; timed work between; failures go to the caller; nothing after the end."""

import threading
import time

import pytest

from headrace.rpc.errors import Unavailable
from headrace.rpc.owner import Owner


@pytest.fixture
def owner():
    owner = Owner()
    owner.start()
    yield owner
    owner.stop()


def test_what_is_submitted_runs_in_order_on_the_owners_thread(owner):
    ran = []
    futures = [owner.submit(lambda i=i: ran.append((i, threading.current_thread().name))) for i in range(100)]
    for future in futures:
        future.result(5)
    assert ran == [(i, "owner") for i in range(100)]
    with pytest.raises(KeyError):
        owner.submit(lambda: {}["missing"]).result(5)


def test_a_call_runs_on_the_callers_thread_and_raises_there(owner):
    assert owner.call(threading.current_thread) is threading.current_thread()
    with pytest.raises(KeyError):
        owner.call(lambda: {}["missing"])
    assert owner.call(lambda: 7) == 7


def test_callers_come_in_in_the_order_in_which_they_asked(owner):
    ran, busy, free, threads = [], threading.Event(), threading.Event(), []
    held = owner.submit(lambda: (busy.set(), free.wait(10)))
    assert busy.wait(10)
    for i in range(20):
        threads.append(threading.Thread(target=owner.call, args=(lambda i=i: ran.append(i),)))
        threads[-1].start()
        while len(owner._turns._waiting) <= i:
            time.sleep(0.001)
    free.set()
    for thread in threads:
        thread.join(10)
    assert ran == list(range(20)) and held.result(5)


def test_never_two_at_once():
    owner, inside, seen, total = Owner(), [], [], [0]

    def work():
        inside.append(1)
        seen.append(len(inside))
        total[0] += 1
        time.sleep(0)
        inside.pop()

    owner.every(0.0005, work)
    owner.start()
    threads = [threading.Thread(target=lambda: [owner.call(work) for _ in range(200)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    owner.stop()
    assert max(seen) == 1 and total[0] > 1200


def test_timed_work_is_not_starved_by_callers():
    owner, times, stop = Owner(), [], threading.Event()
    owner.every(0.01, lambda: times.append(time.monotonic()))
    owner.start()

    def callers():
        while not stop.is_set():
            owner.call(lambda: time.sleep(0.001))

    threads = [threading.Thread(target=callers) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while len(times) < 10 and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(10)
    owner.stop()
    assert len(times) >= 10


def test_timed_work_goes_on_after_a_failure():
    owner, times, enough = Owner(), [], threading.Event()

    def work():
        times.append(1)
        if len(times) == 3:
            enough.set()
        raise RuntimeError("logged, not fatal")

    owner.every(0.001, work)
    owner.start()
    assert enough.wait(10)
    assert owner.call(lambda: 7) == 7
    owner.stop()


def test_what_is_asked_for_before_the_start_waits_for_it():
    owner, ran = Owner(), []
    thread = threading.Thread(target=lambda: owner.call(lambda: ran.append(1)))
    thread.start()
    thread.join(0.05)
    assert not ran
    owner.start()
    thread.join(10)
    assert ran == [1]
    owner.stop()


def test_stop_finishes_what_waits_and_refuses_the_rest():
    owner, ran, busy, free = Owner("ps-0"), [], threading.Event(), threading.Event()
    owner.start()
    first = threading.Thread(target=lambda: owner.call(lambda: (busy.set(), free.wait(10), ran.append("called"))))
    first.start()
    assert busy.wait(10)
    later = [owner.submit(lambda i=i: ran.append(i)) for i in range(3)]
    ending = threading.Thread(target=owner.stop)
    ending.start()
    while not owner._stopping:
        time.sleep(0.001)
    for ask in (owner.call, owner.submit):
        with pytest.raises(Unavailable, match="ps-0 has stopped"):
            ask(lambda: ran.append("late"))
    free.set()
    ending.join(10)
    assert not ending.is_alive() and ran == ["called", 0, 1, 2] and all(future.done() for future in later)
    first.join(10)
    owner.stop()
    Owner().stop()


def test_who_gives_way_goes_on_behind_those_who_wait():
    owner, order, waiting = Owner(), [], threading.Event()
    owner.start()

    def long():
        order.append("first half")
        waiting.set()
        while not owner._turns._waiting:
            time.sleep(0.001)
        owner.give_way()
        order.append("second half")

    working = threading.Thread(target=owner.call, args=(long,))
    working.start()
    waiting.wait(10)
    owner.call(lambda: order.append("a reader"))
    working.join(10)
    owner.call(lambda: (owner.give_way(), order.append("nobody waits")))
    owner.stop()
    assert order == ["first half", "a reader", "second half", "nobody waits"]


def test_who_gives_way_to_an_end_is_told():
    owner, inside, told = Owner("shop"), threading.Event(), []
    owner.start()

    def long():
        inside.set()
        while not owner._turns._waiting:
            time.sleep(0.001)
        owner.give_way()

    def working():
        try:
            owner.call(long)
        except Unavailable as error:
            told.append(str(error))

    thread = threading.Thread(target=working)
    thread.start()
    inside.wait(10)
    owner.stop()
    thread.join(10)
    assert told == ["shop has stopped"]
