"""The platform in one process: what is served is what is learnt, once its window has closed; a copy stands still until it is refreshed."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.config import Model
from headrace.features.layout import NUMBERS
from headrace.inprocess import Platform
from headrace.models.progressive import MODEL

START_MS, WINDOW_MS = 1_700_000_000_000, 60_000
ITEMS = ["a", "b", "c", "d"]


@pytest.fixture
def platform(tmp_path):
    made = Platform(tmp_path / "store", Model(), WINDOW_MS)
    yield made
    made.close()


def click(user, item, ts_ms, number):
    return {"event_id": f"e{number}", "request_id": None, "scene": "", "user_id": user, "item_id": item, "action": "click", "value": 1.0,
            "position": None, "ts_ms": ts_ms, "context": {"item.topic": "news"}, "exposure": None}


def serve(platform, number, clicked, ts_ms, user="u"):
    """A request of `user` that is shown all items in order, and clicks those of `clicked`."""
    platform.at(ts_ms)
    ranked = platform.rank(user, ITEMS, {"daypart": "night"}, ts_ms)
    label = np.array([item in clicked for item in ITEMS])
    actions = [click(user, item, ts_ms + 1000, f"{number}{item}") for item in clicked]
    platform.show(ranked, range(len(ITEMS)), f"r{number}", user, {"daypart": "night"}, ts_ms, actions, label)
    return ranked


def samples(platform):
    return platform.parameters.summary(MODEL)["samples"]


def test_a_sample_is_learnt_when_its_window_has_closed(platform):
    serve(platform, 0, ["b"], START_MS)
    platform.at(START_MS + WINDOW_MS - 1)
    assert samples(platform) == 0
    platform.at(START_MS + WINDOW_MS)
    assert samples(platform) == len(ITEMS) and platform.parameters.summary(MODEL)["positives"] == 1


def test_what_is_clicked_rises_for_everybody(platform):
    first = serve(platform, 0, ["b"], START_MS).probabilities
    np.testing.assert_allclose(first, first[0], atol=1e-3)  # nothing is known yet
    for n in range(1, 60):
        serve(platform, n, ["b"], START_MS + n * 120_000, f"u{n % 7}")
    after = serve(platform, 60, [], START_MS + 60 * 120_000, "stranger").probabilities
    assert after[1] > after[0] + 0.1 and after[1] > 0.5 > after[2]


def test_features_know_a_click_when_it_happened_and_not_before(platform):
    at = NUMBERS.index("item_clicks")
    serve(platform, 0, ["b"], START_MS)
    assert serve(platform, 1, [], START_MS + 999).assembled.numbers[1, at] == 0
    assert serve(platform, 2, [], START_MS + 1000).assembled.numbers[1, at] == pytest.approx(1, abs=1e-3)
    assert serve(platform, 3, [], START_MS + 1001).assembled.numbers[1, NUMBERS.index("item_impressions")] == pytest.approx(3, abs=1e-3)


def test_a_copy_serves_old_weights_with_new_features(tmp_path):
    """Two platforms with the same past: one serves a copy. After a refresh they agree to the bit."""
    live, copied = Platform(tmp_path / "live", Model(), WINDOW_MS), Platform(tmp_path / "copied", Model(), WINDOW_MS, copied=True)
    try:
        for n in range(30):
            for one in (live, copied):
                serve(one, n, ["b"], START_MS + n * 120_000)
        end_ms = START_MS + 30 * 120_000
        live.at(end_ms)
        copied.at(end_ms)
        mine, theirs = (one.rank("u", ITEMS, {}, end_ms) for one in (live, copied))
        assert samples(live) == samples(copied) == 120
        np.testing.assert_array_equal(mine.assembled.values, theirs.assembled.values)
        assert mine.probabilities[1] - mine.probabilities[0] > 0.1
        np.testing.assert_allclose(theirs.probabilities, 0.5, atol=0.01)
        assert mine.weights.sequence > theirs.weights.sequence
        copied.refresh()
        np.testing.assert_array_equal(copied.rank("u", ITEMS, {}, end_ms).probabilities, mine.probabilities)
    finally:
        live.close()
        copied.close()
