"""The strategy `eager` on a stack of its own: positives at once, negatives at the close, every exposure scored before anything is known of
it, and with shuffled labels an AUC of a half although the order of arrival tells the labels."""

import json
import time

import pytest

from headrace.config import Config
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, until

WINDOW_MS = 4000
ROWS = 12_000


@pytest.fixture(scope="module")
def eager(tmp_path_factory):
    """(the stack seen from outside, its command line), with jobs."""
    config = Config()
    config.samples.strategy, config.samples.window_ms = "eager", WINDOW_MS
    for stack in running(tmp_path_factory.mktemp("eager"), config=config):
        command = towards(stack, HEADRACE_SAMPLES__STRATEGY="eager", HEADRACE_SAMPLES__WINDOW_MS=str(WINDOW_MS))
        submitted = command("jobs", "submit")
        assert submitted.returncode == 0, submitted.stderr
        with Outside(stack) as outside:
            yield outside, command


def event(name, user, item, action, **more):
    return {"event_id": name, "user_id": user, "item_id": item, "action": action, **more}


def send(stack, events):
    answer = stack.post("/events", events)
    assert (answer.status_code, answer.json()["refused"]) == (200, 0), answer.text


def labels(stack, start):
    return {row["event_id"]: row["label"] for row in stack.samples(start).values()}


def test_five_events_by_hand_come_out_whole(eager):
    """A positive before its window has closed; the other exposure as a negative once it has; the action labels the newest exposure."""
    stack, _ = eager
    start, dead = stack.offsets("samples"), stack.offsets("dead-letters")
    send(stack, [event("e1", "eve", "i1", "impression"), event("e2", "eve", "i2", "impression")])
    send(stack, [event("e3", "eve", "i1", "impression")])
    send(stack, [event("e4", "eve", "i1", "click"), event("e5", "eve", "i1", "click")])  # two clicks are one label
    assert until(lambda: len(found := labels(stack, start)) == 3 and found, "three samples") == {"e1": 0.0, "e2": 0.0, "e3": 1.0}
    order = [row.record["event_id"] for row in stack.read("samples", start)]
    assert order[0] == "e3", "the positive waited for the close of older exposures"
    assert all(row["strategy"] == "eager" for row in stack.samples(start).values())
    assert stack.offsets("dead-letters") == dead


def test_actions_without_an_exposure_in_their_window_are_told(eager):
    stack, _ = eager
    dead, start = stack.offsets("dead-letters"), stack.offsets("samples")
    now = int(time.time() * 1000)
    send(stack, [event("o1", "odd", "i9", "click"),
                 event("o2", "odd", "i8", "impression", ts_ms=now - 1),
                 event("o3", "odd", "i8", "click", request_id="another request")])
    found = until(lambda: len(rows := stack.read("dead-letters", dead)) >= 2 and rows, "two dead letters")
    assert [row.record["reason"] for row in found] == ["no_exposure"] * 2
    assert until(lambda: labels(stack, start), "the negative") == {"o2": 0.0}


@pytest.mark.parametrize("shuffled", [False, True])
def test_scores_are_fair_though_the_order_of_arrival_tells_labels(eager, kuairand, tmp_path, shuffled):
    stack, command = eager
    report = tmp_path / "report.json"
    start = stack.offsets("samples")
    rows = ["--limit", str(ROWS), "--speed", "20000x"]  # some twenty seconds: scored before anything is learnt, all would say nothing
    file = kuairand
    if shuffled:
        rows += ["--shuffle-labels", "3"]
        file = renamed(kuairand, tmp_path / "again.parquet")
    done = command("replay", str(file), "--mapping", str(kuairand.parent / "mapping.toml"), "--clock", "now", "--report", str(report),
                   *rows)
    assert done.returncode == 0, done.stderr
    told = json.loads(report.read_text())
    samples = stack.samples(start)
    assert len(samples) == told["samples"] == told["impressions"] == ROWS and told["samples_applied"] == [ROWS] * 2
    assert told["dead_letters"] == 0 and told["dead_letters_by_reason"] == {}
    assert told["positives"] == told["actions"]
    assert all(row["score"] is not None and row["model"] == stack.model for row in samples.values())
    if shuffled:
        assert abs(told["auc"] - 0.5) < 0.02, told["auc"]
    else:
        # Far from what it reaches in a user's own time: here a whole session passes between a positive and its negatives.
        assert told["auc"] > 0.55 and told["auc_popularity"] > 0.6


def renamed(file, to, prefix="z"):
    """The same rows of other users and items, whose features know nothing. Each test on the session's stack has a prefix of its own: of the
    same users the rows would be retries."""
    import pyarrow.compute as pc
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file)
    for column in ("user_id", "video_id"):
        name = column if column in table.column_names else "item_id"
        at = table.column_names.index(name)
        table = table.set_column(at, name, pc.binary_join_element_wise(prefix, pc.cast(table[name], "string"), ""))
    pyarrow.parquet.write_table(table, to)
    return to
