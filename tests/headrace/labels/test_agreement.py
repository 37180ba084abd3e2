"""Agreement by hand, and by the coincidences that the paper counts."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.labels.agreement import agreement, alpha, kappa
from tests.headrace.labels.test_labels import label

UNITS = st.lists(st.lists(st.sampled_from([0.0, 1.0]), max_size=4), max_size=12)


def coincidences(units):
    """Krippendorff's alpha for nominal data, by his matrix of coincidences."""
    met = Counter()
    for values in units:
        for pair in permutations(range(len(values)), 2):
            met[values[pair[0]], values[pair[1]]] += 1 / (len(values) - 1)
    n = sum(met.values())
    of = Counter()
    for (value, _), count in met.items():
        of[value] += count
    expected = sum(of[a] * of[b] for a in of for b in of if a != b) / (n - 1) if n > 1 else 0
    return None if not expected else 1 - sum(count for (a, b), count in met.items() if a != b) / expected


@given(UNITS)
def test_alpha_is_that_of_the_coincidences(units):
    wanted = coincidences(units)
    assert alpha(units) is None if wanted is None else alpha(units) == pytest.approx(wanted)


def test_kappa_by_hand():
    both = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15  # the example of Cohen's statistic everywhere
    assert kappa(both) == pytest.approx(0.4)
    assert kappa([(1, 1)] * 3) is None and kappa([(1, 0), (0, 1)]) == -1.0


def test_by_target_and_pair():
    said = [label("i", 1.0, "ann"), label("i", 1.0, "bob"), label("j", 0.0, "ann"), label("j", 0.0, "bob"), label("k", 1.0, "cat"),
            label("i", 1.0, "ann", target="click")]
    click, spam = agreement(said)
    assert (click.target, click.units, click.twice, click.alpha, click.pairs) == ("click", 1, 0, None, [])
    assert (spam.units, spam.twice, spam.alpha) == (3, 2, 1.0) and agreement([]) == []
    assert [tuple(pair) for pair in spam.pairs] == [("ann", "bob", 2, 1.0, 1.0)]
