"""The newest cause, and the ages that a hop tells."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headrace.rpc.errors import BadMessage
from headrace.rpc.freshness import GAP_MS, KEPT, WINDOW_MS, Hop, Newest, from_header, newer, of_rows, to_header

ONE, TWO = Newest(7, 0, 5, 1000), Newest(7, 1, 2, 1001)


def test_the_later_event_time_is_newer_and_nothing_is_older_than_all():
    assert newer(ONE, TWO) == newer(TWO, ONE) == newer(TWO, None) == TWO
    assert newer(None, None) is None
    assert of_rows(np.array([7, 7]), np.array([0, 1]), np.array([5, 2]), np.array([1001, 1000])) == Newest(7, 0, 5, 1001)
    assert of_rows(*[np.zeros(0, np.int64)] * 4) is None


def test_headers_carry_it_and_refuse_what_it_is_not():
    assert from_header(to_header(ONE)) == ONE and from_header(to_header(None)) is None
    for wrong in ([1, 2, 3], "7", [1, 2, 3, "4"], {"source": 1}):
        with pytest.raises(BadMessage, match="newest is"):
            from_header(wrong)


def test_a_hop_tells_the_quantiles_of_what_arrived_and_counts_no_cause_twice():
    now = [0]
    hop = Hop("gradient", lambda: now[0])
    assert hop.quantiles_ms() == {}
    for n in range(1, 101):
        now[0] = 10_000 + 10 * n
        hop.observe(Newest(7, 0, n, now[0] - n))
        hop.observe(Newest(7, 0, n, now[0] - n))  # asked again: it has not become older by that
        hop.observe(Newest(7, 0, 1, 5))
        hop.observe(None)
    assert hop.quantiles_ms() == {0.5: pytest.approx(50.5), 0.99: pytest.approx(99.01)}
    registry = CollectorRegistry()
    registry.register(hop)
    text = generate_latest(registry).decode()
    assert 'headrace_hop_ms{hop="gradient",quantile="0.99"} 99.0' in text and 'headrace_hop_causes_total{hop="gradient"} 100.0' in text


def test_a_log_in_its_own_time_says_nothing_of_freshness_and_old_ages_are_forgotten():
    now = [1_700_000_000_000]
    hop = Hop("vector", lambda: now[0])
    hop.observe(Newest(7, 0, 1, 874_724_710_000))
    assert hop.quantiles_ms() == {}
    for n in range(KEPT):
        hop.observe(Newest(7, 0, n, now[0] - 500_000 + n))
    for n in range(KEPT):
        now[0] += 1
        hop.observe(Newest(7, 0, n, now[0] - 3))
    assert hop.quantiles_ms() == {0.5: 3.0, 0.99: 3.0}


def test_a_stream_that_rests_is_not_judged_by_what_it_did_before():
    now = [1_700_000_000_000]
    hop = Hop("vector", lambda: now[0])
    hop.observe(Newest(7, 0, 1, now[0] - 90_000))
    assert hop.quantiles_ms()[0.99] == 90_000.0
    now[0] += WINDOW_MS + 1
    assert hop.quantiles_ms() == {} and hop.count == 1
    hop.observe(Newest(7, 0, 2, now[0] - 200))
    assert hop.quantiles_ms()[0.99] == 200.0


def test_what_came_while_nobody_asked_has_aged_by_that_and_does_not_count():
    now = [1_700_000_000_000]
    hop = Hop("recommendation", lambda: now[0], asked=True)
    hop.observe(Newest(7, 0, 1, now[0] - 107_000))  # the first for a long time
    assert hop.quantiles_ms() == {} and hop.count == 1
    now[0] += GAP_MS - 1
    hop.observe(Newest(7, 0, 2, now[0] - 300))
    now[0] += 50
    hop.observe(Newest(7, 0, 2, now[0] - 350))
    assert hop.quantiles_ms() == {0.5: 300.0, 0.99: 300.0}
    now[0] += GAP_MS
    hop.observe(Newest(7, 0, 3, now[0] - 5_000))
    assert hop.quantiles_ms()[0.99] == 300.0
