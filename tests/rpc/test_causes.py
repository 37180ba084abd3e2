"""The applied ring against a set of integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.rpc.causes import APPLIED, NEW, OLD, PAGE_BITS, Causes, Ring, RingKey, Rings
from headrace.rpc.errors import BadMessage, TooOld


def causes(*triples):
    columns = np.array(triples, np.int64).reshape(-1, 3)
    return Causes(columns[:, 0].astype(np.int32), columns[:, 1].astype(np.int32), columns[:, 2])


@given(st.lists(st.lists(st.integers(0, 6 * PAGE_BITS), max_size=20), max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_ring_remembers_what_lies_above_its_floor(batches):
    ring, applied, highest = Ring(2 * PAGE_BITS), set(), -1
    for batch in batches:
        offsets = np.array(batch, np.int64)
        floor = max(0, (highest // PAGE_BITS + 1) * PAGE_BITS - 2 * PAGE_BITS) if highest >= 0 else 0
        expected = [OLD if one < floor else APPLIED if one in applied else NEW for one in batch]
        assert ring.check(offsets).tolist() == expected
        new = np.unique(offsets[ring.check(offsets) == NEW])
        ring.mark(new)
        applied |= set(new.tolist())
        highest = max([highest, *new.tolist()])
        assert ring.highest == highest
    assert len(ring.pages) <= 2


def test_rings_are_apart_by_scope_effect_source_and_partition():
    rings = Rings(PAGE_BITS)
    rings.mark("fm@1", "click", causes((1, 0, 5)))
    others = (("fm@2", "click", (1, 0, 5)), ("fm@1", "like", (1, 0, 5)), ("fm@1", "click", (2, 0, 5)), ("fm@1", "click", (1, 1, 5)))
    for scope, effect, cause in others:
        assert rings.check(scope, effect, causes(cause)).tolist() == [NEW]
    assert rings.check("fm@1", "click", causes((1, 0, 5), (1, 0, 6))).tolist() == [APPLIED, NEW]


def test_restored_pages_answer_as_before():
    rings = Rings(4 * PAGE_BITS)
    rings.mark("fm@1", "click", causes((7, 3, 1), (7, 3, PAGE_BITS + 1), (7, 0, 3 * PAGE_BITS)))
    again = Rings(4 * PAGE_BITS)
    for key, page, data in rings.items():
        again.restore(key, page, data)
    assert list(again.items()) == list(rings.items())
    assert again.count("fm@1") == rings.count("fm@1", "click") == 3


def test_what_the_ring_has_moved_past_is_still_counted():
    rings, sent = Rings(2 * PAGE_BITS), 0
    for first in range(0, 9 * PAGE_BITS, 1000):
        offsets = np.arange(first, first + 1000, 3)
        rings.mark("s", "e", Causes(np.full(len(offsets), 1, np.int32), np.zeros(len(offsets), np.int32), offsets))
        sent += len(offsets)
        assert rings.count("s") == sent
    assert sum(np.unpackbits(np.frombuffer(data, np.uint8)).sum() for _, _, data in rings.items()) < sent / 3


def test_a_ring_opened_longer_does_not_take_dropped_pages_for_new():
    rings, key = Rings(PAGE_BITS), RingKey("fm@1", 7, 0, "click")
    rings.mark("fm@1", "click", causes((7, 0, 5), (7, 1, 5)))
    rings.mark("fm@1", "click", causes((7, 0, 2 * PAGE_BITS)))
    assert list(rings.firsts()) == [(key, 2, 1)]
    longer = Rings(4 * PAGE_BITS)
    for kept, page, data in rings.items():
        longer.restore(kept, page, data)
    for kept, page, dropped in rings.firsts():
        longer.restore_first(kept, page, dropped)
    assert longer.count("fm@1") == rings.count("fm@1") == 3
    asked = causes((7, 0, 5), (7, 0, 2 * PAGE_BITS), (7, 0, 2 * PAGE_BITS + 1), (7, 1, 5))
    assert longer.check("fm@1", "click", asked).tolist() == [OLD, APPLIED, NEW, APPLIED]
    longer.mark("fm@1", "click", causes((7, 0, 5 * PAGE_BITS)))
    assert longer.check("fm@1", "click", asked).tolist() == [OLD, APPLIED, NEW, APPLIED]
    longer.mark("fm@1", "click", causes((7, 0, 6 * PAGE_BITS)))
    assert longer.check("fm@1", "click", asked).tolist() == [OLD, OLD, OLD, APPLIED]


def test_touched_pages_are_told_so_that_they_are_written_with_the_data():
    rings = Rings(4 * PAGE_BITS)
    assert rings.mark("s", "e", causes((1, 2, 3), (1, 2, PAGE_BITS))) == [(RingKey("s", 1, 2, "e"), 0), (RingKey("s", 1, 2, "e"), 1)]
    assert len(rings.page(RingKey("s", 1, 2, "e"), 0)) == PAGE_BITS // 8


def test_a_cause_before_the_ring_stops_the_caller():
    rings = Rings(PAGE_BITS)
    rings.mark("s", "e", causes((1, 0, 5 * PAGE_BITS)))
    with pytest.raises(TooOld, match=r"offset 7 .*partition 0.*stop the job"):
        rings.check_new("s", "e", causes((1, 0, 7)))


def test_negative_numbers_are_refused():
    with pytest.raises(BadMessage, match="negative"):
        Rings(PAGE_BITS).check("s", "e", causes((1, 0, -1)))
