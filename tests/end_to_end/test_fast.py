"""The strategy `fast` on a stack of its own: an exposure is learnt before anybody knows its label, its click once more, and what is counted
and kept are final labels alone."""

import pytest

from headrace.config import Config
from headrace.taps import applied_of
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, until
from tests.end_to_end.test_eager import event, labels, send

WINDOW_MS = 20_000


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """The stack seen from outside, with jobs."""
    config = Config()
    config.samples.strategy, config.samples.window_ms = "fast", WINDOW_MS
    for stack in running(tmp_path_factory.mktemp("fast"), config=config):
        command = towards(stack, HEADRACE_SAMPLES__STRATEGY="fast", HEADRACE_SAMPLES__WINDOW_MS=str(WINDOW_MS))
        submitted = command("jobs", "submit")
        assert submitted.returncode == 0, submitted.stderr
        with Outside(stack) as outside:
            yield outside


def effects(stack):
    """What each shard has applied: ({effect: causes}, those with a final label)."""
    return [(one["models"][stack.model]["effects"], applied_of(one, stack.model)) for one in stack.stats()]


def test_an_exposure_is_learnt_at_once_and_its_label_when_it_is_known(fast):
    start, first = fast.offsets("samples"), fast.offsets("provisional")
    shown = [event(f"f{n}", f"fay{n}", "i1", "impression") for n in range(6)]
    send(fast, shown)
    until(lambda: all(found.get("click.provisional") == 6 for found, _ in effects(fast)), lambda: f"six provisional: {effects(fast)}")
    assert all((found.get("click", 0), final) == (0, 0) for found, final in effects(fast)), "no window has closed"
    assert fast.offsets("samples") == start
    send(fast, [event("f9", "fay0", "i1", "click")])
    until(lambda: all(found.get("click") == 1 for found, _ in effects(fast)), lambda: f"the positive: {effects(fast)}")
    assert labels(fast, start) == {"f0": 1.0}, "before the window closed"
    until(lambda: all(final == 6 for _, final in effects(fast)), lambda: f"six final labels: {effects(fast)}", 120)
    assert labels(fast, start) == {f"f{n}": float(n == 0) for n in range(6)}
    provisional = [row.record for row in fast.read("provisional", first)]
    assert sorted(row["event_id"] for row in provisional) == [f"f{n}" for n in range(6)] and {row["label"] for row in provisional} == {0.0}
    samples = list(fast.samples(start).values())
    assert {row["strategy"] for row in samples} == {"fast"} and all(row["score"] is not None for row in samples)
