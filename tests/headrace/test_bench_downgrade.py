"""The rows of `headrace bench ps.downgrade`, by hand."""

import numpy as np
import pytest

from headrace.bench import ps_downgrade as bench
from headrace.bench.downgrade_world import Course, Trouble
from headrace.watch.downgrade import Step

PLAN = bench.Plan(1, 1, 40, 10, 20, 40, 5, 1, ())
TROUBLE = Trouble("t", 10, 20, share=0.5)


def course(*steps, served=0.0, loss=1.0):
    hour = np.arange(0, 40, 0.5)
    within = (hour >= 10) & (hour < 20)
    return Course(hour, np.where(within, loss, 0.5), np.full(80, 2.0), np.where(hour < served, 3, 0), np.arange(80) * 8,
                  [(at, samples, Step(kind, version, f"because {kind}", {})) for at, samples, kind, version in steps])


def test_times_are_from_the_beginning_and_costs_are_of_the_trouble():
    found = course((4, 50, "publish", 0), (11.5, 200, "alarm", 0), (12.0, 220, "serve", 3), (26.0, 500, "serve", 0), loss=0.8)
    detect, serve, loss = bench.of(PLAN, TROUBLE, found, course(loss=1.6))
    assert (detect.value, serve.value, detect.of_value) == (1.5, 2.0, 10)
    assert detect.note.startswith(f"after {200 - 19 * 8} samples; because alarm")
    assert (loss.value, loss.of_value) == pytest.approx((0.8, 1.6)) and loss.ratio == pytest.approx(2.0)
    assert "live returned 6.0 h after its end" in loss.note and "before 0.5000" in loss.note


def test_what_is_not_seen_and_what_is_seen_too_late_never_came():
    for steps, text in (((), "not within the trouble"), (((21.0, 300, "alarm", 0), (21.0, 300, "serve", 1)), "only 1.00 h after its end")):
        detect, serve, loss = bench.of(PLAN, TROUBLE, course(*steps), course())
        assert detect.value == serve.value == bench.NEVER and detect.ratio == 0.0 and text in detect.note
        assert ("never stepped back" in loss.note) == (not steps)


def test_clean_hours_are_those_in_which_live_served():
    row = bench.clean([(course((3, 1, "serve", 3)), 5, 40), (course((6, 1, "alarm", 0), (6, 1, "serve", 3), served=12.0), 5, 40)], "here")
    assert row.value == pytest.approx(70 - 7) and row.of_value == 70
    assert "1 false steps, 1 alarms" in row.note  # what lies before the span does not count


def test_creeping_labels_grow_to_their_share():
    creeping = Trouble("c", 10, 20, share=0.2, creeping=True)
    assert creeping.turned(np.array([9.9, 10, 15, 19.999, 20])) == pytest.approx([0, 0, 0.1, 0.2, 0], abs=1e-3)
