"""Samples on their way when definitions change: made samples of the set that is held, by name."""

import numpy as np
import pytest

from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.frozen import FrozenRows
from headrace.features.known_sets import KnownSets, Layout
from headrace.features.layout import F, K
from headrace.features.store import FeatureStore

COUNT = '[feature.presses]\nentity = "user"\nreducer = "count"\n'
LAST = '[feature.authors]\nentity = "user"\nreducer = "last_n"\nn = 2\nvalue = "item.author"\n'
RATE = '[feature.rate]\nentity = "item"\nreducer = "ratio"\nprior = 0.25\nover = { action = "impression" }\n'


def of(text):
    return FeatureSet.of((("f.toml", text),))


def layout(made):
    return Layout(made.name, made.layout_slots, made.layout_numbers)


def sample(made, n=3):
    rng = np.random.default_rng(len(made.slots))
    return (rng.integers(1, 1 << 60, (n, made.F)).astype(np.uint64), rng.random((n, made.F)).astype(np.float32),
            rng.random((n, made.K)).astype(np.float32))


def test_what_both_have_is_taken_over_and_what_is_new_is_blank():
    before, now = of(COUNT + LAST), of(RATE + LAST)
    keys, values, numbers = sample(before)
    made = KnownSets(now, [layout(before), layout(BASE)]).now(before.name, keys, values, numbers)
    np.testing.assert_array_equal(made[0], keys)  # built-in slots and both authors
    np.testing.assert_array_equal(made[1], values)
    np.testing.assert_array_equal(made[2][:, :K], numbers[:, :K])
    assert (made[2][:, K] == np.float32(0.25)).all() and made[2].shape == (3, K + 1)
    from_base = KnownSets(now, [layout(BASE)]).now(BASE.name, *sample(BASE))
    assert (from_base[0][:, F:] == now.id_seeds).all() and (from_base[1][:, F:] == 0).all()


def test_packed_is_the_same_of_one():
    before, now = of(COUNT), of(COUNT + LAST)
    known, columns = KnownSets(now, [layout(before)]), sample(before)
    wide = known.now(before.name, *columns)
    packed = known.packed(before.name, *(column[1].tobytes() for column in columns))
    assert packed == tuple(column[1].tobytes() for column in wide)
    assert known.width(before.name) == tuple(column[1].nbytes for column in columns)


def test_the_set_held_and_strangers_are_not_among_those_from_before():
    known = KnownSets(BASE, [layout(BASE), layout(of(COUNT))])
    assert BASE.name not in known and "shop@3" not in known and of(COUNT).name in known


def test_a_store_remembers_the_sets_that_it_has_had(tmp_path):
    store = FeatureStore(tmp_path)
    sets = [BASE, of(COUNT), of(COUNT + LAST)]
    for made in sets:
        FrozenRows(store, made)
    store.close()
    store = FeatureStore(tmp_path)
    assert FrozenRows(store, of(COUNT)).layouts == [layout(one) for one in sets]
    store.close()


@pytest.mark.parametrize("text", [COUNT, LAST])
def test_back_again_is_what_it_was_where_nothing_was_added(text):
    small, wide = of(text), of(text + RATE)
    columns = sample(small)
    there = KnownSets(wide, [layout(small)]).now(small.name, *columns)
    back = KnownSets(small, [layout(wide)]).now(wide.name, *there)
    assert all((a == b).all() for a, b in zip(columns, back, strict=True))


def test_a_name_that_has_moved_on_to_a_newer_version_does_not_take_the_older_ones_values():
    before, now = of(COUNT + LAST), of(COUNT + LAST + COUNT.replace("presses]", "other]") + 'version = 1\n')
    newer = FeatureSet.of((("f.toml", COUNT + LAST), ("g.toml", COUNT + 'window = "1d"\nversion = 2\n')))
    assert newer.numbers[K:] == ("presses@1", "presses") and before.numbers[K:] == ("presses",) and now.numbers[K:] == ("presses", "other")
    columns = sample(before)
    made = KnownSets(newer, [layout(before)]).now(before.name, *columns)
    np.testing.assert_array_equal(made[2][:, K], columns[2][:, K])
    assert (made[2][:, K + 1] == 0).all(), "the newer one was not kept then"
    two = FeatureSet.of((("f.toml", LAST), ("g.toml", LAST + "version = 2\n")))
    assert len(np.unique(two.id_seeds)) == 2, "two versions of ids are two features to a model"
