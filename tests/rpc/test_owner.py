"""One thread, in order; timed work between; failures go to the caller."""

import threading

import pytest

from headrace.rpc.owner import Owner


def test_calls_run_in_order_on_one_thread_and_raise_to_the_caller():
    owner, ran = Owner(), []
    owner.start()
    futures = [owner.submit(lambda i=i: ran.append((i, threading.current_thread().name))) for i in range(100)]
    for future in futures:
        future.result(5)
    assert ran == [(i, "owner") for i in range(100)]
    with pytest.raises(KeyError):
        owner.call(lambda: {}["missing"])
    owner.stop()


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
