"""What is labelled next: the most uncertain of what is shown most."""

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.labels.label import Unit
from headrace.labels.queue import PRIOR, Exposures
from tests.headrace.labels.test_labels import label

ROWS = st.lists(st.tuples(st.sampled_from("ijk"), st.sampled_from("uv"), st.sampled_from(["spam", "click"]), st.sampled_from([0.0, 1.0]),
                          st.one_of(st.none(), st.floats(0, 1))), max_size=30)


def table(rows):
    return pa.table({name: pa.array([row[at] for row in rows], kind) for at, (name, kind) in enumerate((
        ("item_id", pa.string()), ("user_id", pa.string()), ("target", pa.string()), ("label", pa.float64()), ("score", pa.float64())))})


def of(*rows, by_user=False):
    made = Exposures("spam", by_user)
    made.add(table(rows))
    return made


def entropy(p):
    return 0.0 if p in (0, 1) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


@given(ROWS, st.booleans())
def test_the_order_is_that_of_the_bits_of_each_exposure(rows, by_user):
    made = Exposures("spam", by_user)
    for at in range(0, len(rows), 7):
        made.add(table(rows[at : at + 7]))
    mine = [row for row in rows if row[2] == "spam"]
    rate = sum(row[3] for row in mine) / max(len(mine), 1)
    naive = {}
    for item, user, _, _, score in mine:
        shown = [row for row in mine if row[0] == item]
        guess = (sum(row[3] for row in shown) + PRIOR * rate) / (len(shown) + PRIOR)
        naive.setdefault((item, user if by_user else None), []).append(guess if score is None else score)
    found = list(made.next([]))
    assert {(one.unit.item_id, one.unit.user_id): (one.exposures, one.bits, one.score) for one in found} == {
        key: (len(p), pytest.approx(sum(map(entropy, p)), abs=1e-9), pytest.approx(sum(p) / len(p))) for key, p in naive.items()}
    assert [one.bits for one in found] == sorted((one.bits for one in found), reverse=True)


def test_what_has_been_labelled_waits_for_others():
    shown = of(("sure", "u", "spam", 0.0, 0.01), ("often", "u", "spam", 0.0, 0.3), ("often", "v", "spam", 0.0, 0.3),
               ("even", "u", "spam", 0.0, 0.5))
    names = lambda found: [one.unit.item_id for one in found]  # noqa: E731
    assert names(shown.next([])) == ["often", "even", "sure"]
    said = [label("often", labeller="ann"), label("even", labeller="bob")]
    assert names(shown.next(said)) == ["sure"]
    assert names(shown.next(said, "ann")) == ["even", "sure"]
    assert names(shown.next(said, "ann", again=True)) == ["even"] and names(shown.next(said, again=True)) == ["often", "even"]
    assert [one.labelled for one in shown.next(said, "ann")] == [1, 0]


def test_samples_of_a_user_are_labelled_by_themselves():
    shown = of(("i", "u", "spam", 1.0, 0.5), ("i", "v", "spam", 0.0, 0.9), by_user=True)
    assert [one.unit for one in shown.next([label("i", user="u")])] == [Unit("i", "v", "spam")]
    assert list(of().next([])) == []
