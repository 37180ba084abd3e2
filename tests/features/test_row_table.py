"""Rows in memory against a dictionary: what is held, what changed, what may go; and changes done again over rows of any age."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.features import row_kernels
from headrace.features.row_table import Changes, Rings, RowTable

WORDS, PLACES = 5, 12
TURNS = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 40), max_size=6), st.integers(0, 30), st.integers(0, 8),
                           st.sampled_from([0, 0, 1, 2])), max_size=40)


class Twin:
    """A store of rows and what memory says beside it."""

    def __init__(self):
        self.stored, self.now = {}, {}

    def load(self, keys):
        rows = np.array([self.stored.get(int(key), [0] * WORDS) for key in keys], np.uint64).reshape(len(keys), WORDS)
        return rows, np.array([int(key) in self.stored for key in keys], bool)


@given(TURNS)
@settings(max_examples=150, deadline=None)
def test_a_table_says_what_a_dictionary_says(turns):
    """Rows change, others make room, dirty ones are written the oldest first; the log since then makes the store what memory is."""
    twin, log, numbers = Twin(), [], []
    table = RowTable(3, WORDS, np.zeros((PLACES + 1) * WORDS, np.uint64), twin.load)
    for turn, (holds, keys, change, write, undone) in enumerate(turns, 1):
        wanted = np.array(keys, np.uint64)
        places = (table.hold if holds else table.look)(turn, wanted)
        for key, place in zip(keys, places.tolist(), strict=True):
            assert table.rows[place].tolist() == twin.now.get(key, [0] * WORDS)
            assert place or key not in twin.now
        if holds:
            before = dict(twin.now)
            for place, key in zip(places.tolist(), keys, strict=True):
                if key and key % 3:
                    table.rows[place, change % WORDS] = 1 + change
                    twin.now[key] = table.rows[place].tolist()
            out = Changes()
            if undone:  # the block was not written
                if undone > 1:
                    table.changes(turn, 0, out)
                table.undo(turn, iter(log))
                table.undo(turn - 1, iter(log))
                twin.now = before
                continue
            changed, new = table.changes(turn, 0, out)
            named = {int(table.keys[place]) for place in changed}
            assert named == {key for key in keys if twin.now.get(key) != before.get(key)} and len(named) == len(changed)
            assert new == sum(not before.get(key, [0])[0] for key in named)
            log.append(out.words[: out.at].copy())
            numbers.append(turn)
        rows = table.oldest(write)
        assert len(rows) == min(write, table.dirty)
        for place in rows.tolist():
            twin.stored[int(table.keys[place])] = table.rows[place].tolist()
        table.written(len(rows))
        while table.places - table.dirty < 6:
            [place] = table.oldest(1).tolist()
            twin.stored[int(table.keys[place])] = table.rows[place].tolist()
            table.written(1)
    assert _redone(twin, log) == twin.now  # all of it, over rows that are newer
    assert _redone(twin, [words for number, words in zip(numbers, log, strict=True) if number >= table.since()]) == twin.now


def _redone(twin, changes):
    words = np.concatenate([np.zeros(0, np.uint64), *changes])
    family, key = np.zeros(len(words) + 1, np.int64), np.zeros(len(words) + 1, np.uint64)
    count = row_kernels.keys_changed(words, family, key)
    assert (family[:count] == 3).all()
    keys = np.unique(key[:count])
    rows, _ = twin.load(keys)
    row_kernels.redo(words, 3, keys, rows)
    row_kernels.redo(words, 2, keys, np.zeros_like(rows))  # another family's are left alone
    return twin.stored | {int(one): row.tolist() for one, row in zip(keys, rows, strict=True)}


def test_rings_are_told_by_where_the_next_one_goes():
    """Words of a ring that was written, no others, once round and when it was written all around."""
    length, words = 4, 2 + 4
    rings = Rings(np.array([[1, 2]]), length, 1, 2)
    for written in range(9):
        table = RowTable(0, words, np.zeros(3 * words, np.uint64), lambda keys: (np.zeros((len(keys), words), np.uint64), keys == 0), rings)
        [place] = table.hold(1, np.array([7], np.uint64))
        row = table.rows[place]
        for n in range(written):
            row[2 + n % length] = 100 + n
            row[1] += 1
        row[0] = np.uint64((written % length) << 8 | 1)
        out = Changes()
        table.changes(1, 0, out)
        again = np.zeros((1, words), np.uint64)
        row_kernels.redo(out.words[: out.at], 0, np.array([7], np.uint64), again)
        assert again[0].tolist() == row.tolist()
        assert int(out.words[0] & np.uint64(0xFFFFFFFF)) == 1 + (written > 0) + min(written, length)


def test_a_stamp_marks_rows_that_changed_and_only_those():
    table = RowTable(1, WORDS, np.zeros((PLACES + 1) * WORDS, np.uint64), Twin().load)
    first, second = table.hold(1, np.array([5, 6], np.uint64))
    table.rows[first, 2] = 9
    changed, new = table.changes(1, 77, Changes())
    assert (changed.tolist(), new, table.rows[first, 0], table.rows[second, 0]) == ([first], 1, 77, 0)


def test_no_more_rows_than_places_in_one_turn():
    table = RowTable(1, WORDS, np.zeros((PLACES + 1) * WORDS, np.uint64), Twin().load)
    with pytest.raises(AssertionError, match="room for 12"):
        table.hold(1, np.arange(1, PLACES + 2, dtype=np.uint64))


def test_a_row_that_is_dropped_is_read_again():
    twin = Twin()
    twin.stored = {4: [1] * WORDS, 5: [2] * WORDS}
    table = RowTable(1, WORDS, np.zeros((PLACES + 1) * WORDS, np.uint64), twin.load)
    table.look(1, np.array([4, 5], np.uint64))
    twin.stored = {5: [3] * WORDS}
    table.drop(np.array([4, 9], np.uint64))
    places = table.look(2, np.array([4, 5], np.uint64))
    assert places[0] == 0 and table.rows[places[1]].tolist() == [2] * WORDS


@pytest.mark.parametrize("most", [2, 3])
def test_a_family_that_is_here_as_a_whole_is_not_looked_for_elsewhere(most):
    twin, asked = Twin(), []
    twin.stored = {key: [key] * WORDS for key in (4, 5, 6)}

    def load(keys):
        asked.append(keys.tolist())
        return twin.load(keys)

    table = RowTable(1, WORDS, np.zeros((PLACES + 1) * WORDS, np.uint64), load)
    table.fill(iter([np.array([4, 5], np.uint64), np.array([6], np.uint64)]), most)
    asked.clear()
    places = table.look(1, np.array([4, 5, 6, 7], np.uint64))
    assert [table.rows[place].tolist() for place in places] == [[4] * WORDS, [5] * WORDS, [6] * WORDS, [0] * WORDS]
    assert asked == ([] if most == 3 else [[6, 7]])
    if most == 3:
        table.hold(2, np.arange(10, 10 + PLACES, dtype=np.uint64))  # all others go
        assert asked == [] and not table.look(3, np.array([7], np.uint64))[0]
        assert table.rows[table.look(4, np.array([5], np.uint64))[0]].tolist() == [5] * WORDS and asked == [[7], [5]]
