"""A definition that begins late and is backfilled is as in a shard that had it from the first event on: whatever dies, sent twice."""

import numpy as np
import pytest

from headrace import feature_backfill, feature_past
from headrace.feature_backfill import FeatureBackfillError, backfill
from headrace.feature_history import Folded
from headrace.features import reducer_kernels as codes
from headrace.features import row_memory, shard
from headrace.features.backfilled import BackfillRefused
from headrace.features.feature_set import HEADER_WORDS, FeatureSet
from headrace.features.reducers import REDUCERS, parameters_of
from headrace.rpc.errors import Unavailable
from tests.features.events import HALF_LIFE_S, shard_at
from tests.features.test_groups import GENRES, fold, interactions

EXACT = {codes.TILED, codes.RATIO_TILED, codes.LAST_N, codes.FIRST_TIME, codes.LAST_TIME, codes.DISTINCT, codes.LOOKUP, codes.LOOKUP_ID}
OLD = """
[feature.user_all]
entity = "user"
reducer = "count"

[feature.user_author_seen]
entity = "user x item.author"
reducer = "count"
where = { action = "impression" }
"""
MINUTE = 60_000


def written(name, entity, lines=(), suffix="0"):
    keys = parameters_of(REDUCERS[name])
    said = [f"[feature.{entity.replace(' x ', '_').replace('.', '_')}_{name}_{suffix}]", f'entity = "{entity}"', f'reducer = "{name}"']
    said += ['value = "value"' if REDUCERS[name].takes == "number" else 'value = "item"'] if name != "ratio" and "value" in keys else []
    said += ['where = { action = "click" }', 'over = { action = "impression" }', "prior = 0.2"] if name == "ratio" else []
    return "\n".join([*said, *(["n = 3"] if name in ("top_n", "last_n") else []), *lines])


def definitions():
    """Every reducer of the table, with each way to fade, and with a time to live, of users, items, values of theirs and pairs."""
    made = []
    for name in REDUCERS:
        keys = parameters_of(REDUCERS[name])
        fades = {"all": [], "half": ['half_life = "30m"'], "window": ['window = "1h"']}
        for fade, lines in fades.items():
            if fade == "all" or ("half_life" if fade == "half" else fade) in keys:
                made += [written(name, entity, lines, fade) for entity in ("user", "user x item.author", "item.genre")]
                made += [written(name, entity, [*lines, 'ttl = "40m"'], f"{fade}_ttl") for entity in ("item", "user")]
    return "\n\n".join(made)


FIRST, ALL = FeatureSet.of((("old.toml", OLD),)), FeatureSet.of((("old.toml", OLD), ("new.toml", definitions())))
NEW = [one.identity for one in ALL.definitions[len(FIRST.definitions) :]]


def logged(n, seed):
    """Events that come up to ten minutes late, with pauses of hours in which states die."""
    records, chance, pause = interactions(n, seed, late=0.0), np.random.default_rng(seed), 0
    for record in records:
        pause += int(chance.random() < 0.02) * int(chance.integers(90, 300)) * MINUTE
        record["ts_ms"] += pause - int(chance.random() < 0.1) * int(chance.integers(10 * MINUTE))
        record["context"] = {"item.author": "ann", **record["context"], "item.genre": GENRES[int(record["item_id"][1:]) % 3]}
        if chance.random() < 0.5:  # what is said of an item is known by what was said before
            del record["context"]["item.genre"]
    return records


def topics(records, first=0):
    """(interactions, enriched) as they are when these events were folded."""
    places = range(first, first + len(records))
    return ({(0, at): record for at, record in zip(places, records, strict=True)},
            [{"folded": at, "partition": 0, "offset": at, "ts_ms": record["ts_ms"]} for at, record in zip(places, records, strict=True)])


class Stream(Folded):
    """The topics of a service that folds `step` more events of the rest whenever a part is sent; the last, `behind`, are in enriched later,
    when they are asked for (`held`: not before a part is unsure of them)."""

    def __init__(self, one, records, at, step=0, behind=0, held=False):
        self._held = held
        super().__init__(*topics(records[: at - behind]))
        self.shard, self._records, self.at, self._step, self._behind = one, records, at, step, behind
        self.sent_parts, self.unsure = [], 0

    def backfills(self):
        return {"sequence": self.shard.sequence, "definitions": self.shard.backfills.told}

    def names(self, names):
        return 0

    def merge_states(self, part):
        if self._step:
            fold(self.shard, self._records[self.at : self.at + self._step], self.at)
            self.at = min(len(self._records), self.at + self._step)
        self.sent_parts.append(part)
        told = self.shard.merge_states(part)
        if told.get("unsure"):
            self.unsure, self._behind = self.unsure + 1, 0
        return told

    def later(self, at):
        self.take(*topics(self._records[: max(0, self.at - self._behind)]))
        self._behind -= min(self._behind, not self._held)
        return super().later(at)


def begun(tmp_path, records, since, feature_set=ALL, **settings):
    """A shard that has FIRST for the first `since` events, and `feature_set` then."""
    one = shard_at(tmp_path, feature_set=FIRST, **settings)
    fold(one, records[:since])
    one.close()
    return shard_at(tmp_path, feature_set=feature_set, **settings)


def run(stream, feature_set=ALL, **more):
    return backfill(stream, feature_set, stream, half_life_s=HALF_LIFE_S, **more)


def states(one):
    """{(definition's place, row's key): its state uint64[words]}, {(family, key): newest event time of the row}."""
    one.flush()
    found, newest = {}, {}
    for group in one.set.groups:
        for key, data in one.store.scan(f"group {group.name}"):
            row = np.frombuffer(data, np.uint64)
            newest[group.name, key] = float(row[1:2].view(np.float64)[0])
            for d in group.definitions:
                state = row[one.set.at[d] : one.set.at[d] + one.set.words[d]]
                if state[0]:
                    found[d, key] = state
    assert HEADER_WORDS == 2
    return found, newest


def assert_same(one, whole):
    (found, rows), (wanted, rows_wanted) = states(one), states(whole)
    assert rows == rows_wanted and found.keys() == wanted.keys()
    for (d, key), state in wanted.items():
        code, mine, what = int(one.set.code[d]), found[d, key], (one.set.all[d].identity, key)
        if code in EXACT:
            np.testing.assert_array_equal(mine, state, err_msg=str(what))
        elif code == codes.TOP_N:
            ours, theirs = ({int(s[n]): s[n + 1 : n + 2].view(np.float64)[0] for n in range(1, len(s), 2) if s[n]} for s in (mine, state))
            assert ours == pytest.approx(theirs, rel=1e-9), what
        else:
            np.testing.assert_allclose(mine.view(np.float64), state.view(np.float64), rtol=1e-7, atol=1e-9, err_msg=str(what))
    assert {name: count for name, count in one.counts.items() if name.startswith("group ")} == {
        name: count for name, count in whole.counts.items() if name.startswith("group ")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A shard that had every definition from the first event on, by seed."""
    made = {}

    def of(seed, n=400):
        if seed not in made:
            made[seed] = shard_at(tmp_path_factory.mktemp("whole"), feature_set=ALL)
            fold(made[seed], logged(n, seed))
        return made[seed]

    yield of
    for one in made.values():
        one.close()


@pytest.mark.parametrize(("seed", "step", "behind"), [(1, 0, 0), (2, 0, 0), (3, 1, 3), (4, 2, 5)])
def test_backfilled_while_the_stream_goes_on_it_is_as_if_it_had_been_there(tmp_path, whole, seed, step, behind):
    records, since = logged(400, seed), int(np.random.default_rng(seed).integers(100, 300))
    one = begun(tmp_path, records, since)
    assert {note["since"] for identity, note in one.backfills.told.items() if identity in NEW} == {since}
    middle = min(since + 40, 400)
    fold(one, records[since:middle], since)
    stream = Stream(one, records, middle, step, behind)
    [done] = run(stream)
    assert (done.since, done.events, done.missing) == (since, since, 0)
    assert {ALL.all[d].identity for d in done.definitions} >= set(NEW) and "user_all@1" not in {part.identity for part in stream.sent_parts}
    fold(one, records[stream.at :], stream.at)
    assert_same(one, whole(seed))
    sent = len(stream.sent_parts)
    assert run(stream) == [] and len(stream.sent_parts) == sent, "a second run finds it done"
    for part in stream.sent_parts:  # sent once more, they change nothing
        assert one.merge_states(part) == {"next": one.backfills.told[part.identity]["backfill"]["next"]}
    assert_same(one, whole(seed))
    one.close()


def test_a_state_that_may_have_died_meanwhile_waits_for_the_events_that_tell(tmp_path):
    """The service is three hours of event time ahead of what is read: a state that lived on by then may be one that began anew."""
    records = logged(300, 11)
    for record in records[250:]:
        record["ts_ms"] += 180 * MINUTE
    alone = FeatureSet.of((("old.toml", OLD), ("new.toml", written("mean", "item", ['ttl = "40m"']))))
    one, full = begun(tmp_path / "one", records, 200, alone), shard_at(tmp_path / "full", feature_set=alone)
    fold(full, records)
    fold(one, records[200:], 200)
    stream = Stream(one, records, 300, behind=52, held=True)
    run(stream, alone)
    assert stream.unsure == 1
    assert_same(one, full)
    one.close()
    full.close()


@pytest.mark.parametrize(("late", "after"), [([-60], []), ([-60, -50], [5]), ([50], [10]), ([], [30])])
def test_events_of_a_time_that_the_past_has_left_behind_do_not_count(tmp_path, late, after):
    """`mean` of an item with a time to live of 40 minutes, events by their minutes behind the end of the past."""
    [record] = [one for one in logged(300, 12) if one["action"] == "dwell"][:1]
    minutes = [-20, -10, 0, *late, *after]
    records = [{**record, "event_id": f"x{n}", "value": 1.0 + n * n, "ts_ms": record["ts_ms"] + at * MINUTE}
               for n, at in enumerate(minutes)]
    one, full = begun(tmp_path / "one", records, 3, FEW), shard_at(tmp_path / "full", feature_set=FEW)
    fold(full, records)
    fold(one, records[3 : 3 + len(late)], 3)
    stream = Stream(one, records, 3 + len(late))
    run(stream, FEW)
    fold(one, records[stream.at :], stream.at)
    assert_same(one, full)
    one.close()
    full.close()


@pytest.fixture
def small(monkeypatch):
    """Blocks of 16 events, room for 64 rows of a family, parts of 8 rows."""
    monkeypatch.setattr(row_memory, "BLOCK", 16)
    monkeypatch.setattr(shard, "BLOCK", 16)
    monkeypatch.setattr(feature_past, "PART_ROWS", 8)
    return {"log_bytes": 20_000, "rows_bytes": 1}


FEW = FeatureSet.of((("old.toml", OLD), ("new.toml", "\n\n".join([
    written("count", "user"), written("mean", "item", ['ttl = "40m"']), written("last_n", "user x item.genre")]))))


def many(n, seed):
    """Events of many more users than there is room for."""
    records = logged(n, seed)
    for i, record in enumerate(records):
        record["user_id"] = f"u{i * 7919 % 211}"
    return records


def test_rows_that_are_not_in_memory(tmp_path, small):
    records = many(900, 5)
    one, full = begun(tmp_path / "one", records, 500, FEW, **small), shard_at(tmp_path / "full", feature_set=FEW)
    fold(full, records)
    fold(one, records[500:700], 500)
    stream = Stream(one, records, 700, step=2)
    run(stream, FEW)
    assert len(stream.sent_parts) > 60 and one._memory.tables["group user"].places == 64
    fold(one, records[stream.at :], stream.at)
    assert_same(one, full)
    one.close()
    full.close()


class Killed(BaseException):
    """No error that anything handles."""


class Struck(Stream):
    """Dies before or after the nth write of a shard."""

    def __init__(self, *given, strike, after):
        super().__init__(*given)
        self.left, writes = [strike], self.shard.store
        for holder, name in ((writes.log, "append"), (writes, "write")):
            real = getattr(holder, name)

            def die(*given, real=real):
                self.left[0] -= 1
                if self.left[0] == 0 and not after:
                    raise Killed
                answer = real(*given)
                if self.left[0] == 0:
                    raise Killed
                return answer

            setattr(holder, name, die)


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_write_and_run_again_it_ends_in_the_same_states(tmp_path, small, after):
    records = many(300, 6)
    straight = begun(tmp_path / "straight", records, 200, FEW, **small)
    fold(straight, records[200:], 200)
    run(Stream(straight, records, 300), FEW)
    wanted, strike, died = states(straight), 0, 0
    straight.close()
    one = begun(tmp_path / "one", records, 200, FEW, **small)
    fold(one, records[200:], 200)
    while True:
        strike += 1
        stream = Struck(one, records, 300, strike=strike % 7 + 1, after=after)
        try:
            run(stream, FEW)
            break
        except Killed:
            died += 1
            one.store.close()  # nothing is flushed
            one = shard_at(tmp_path / "one", feature_set=FEW, **small)
    stream.left[0] = 0
    assert died > 10
    found = states(one)
    assert found[1] == wanted[1] and {at: state.tobytes() for at, state in found[0].items()} == {
        at: state.tobytes() for at, state in wanted[0].items()}
    one.close()


def test_a_disk_that_is_full_and_then_is_not(tmp_path):
    """A part that could not be written is not there, and the next call opens the store again and takes it."""
    records = logged(300, 7)
    one, full = begun(tmp_path / "one", records, 200, FEW), shard_at(tmp_path / "full", feature_set=FEW)
    fold(full, records)
    fold(one, records[200:], 200)
    stream = Stream(one, records, 300)
    append = one.store.log.append

    def refused(*given):
        raise OSError("no space left")

    one.store.log.append = refused
    with pytest.raises(Unavailable, match="free the disk"):
        run(stream, FEW)
    one.store.log.append = append
    assert one.failed
    run(stream, FEW)
    assert not one.failed
    assert_same(one, full)
    one.close()
    full.close()


def test_other_events_are_refused(tmp_path):
    records = logged(300, 8)
    one = begun(tmp_path, records, 200, FEW)
    stream = Stream(one, records, 200)
    run(stream, FEW)
    [first, *_] = [part for part in stream.sent_parts if part.identity == "user_count_0@1"]
    with pytest.raises(BackfillRefused, match=r"user_count_0@1 was backfilled .*other ones.*write version = 2 of user_count_0"):
        one.merge_states(first._replace(digest="another"))
    with pytest.raises(BackfillRefused, match="since 200, and what was sent ends at 199"):
        one.merge_states(first._replace(before=199))
    with pytest.raises(BackfillRefused, match="part 7 was sent, and 1 comes next"):
        one.merge_states(first._replace(number=7))
    with pytest.raises(BackfillRefused, match="not among the definitions"):
        one.merge_states(first._replace(identity="nobody@1"))
    assert not one.failed
    one.close()


def test_events_that_are_gone_are_told_and_left_out_when_that_is_wanted(tmp_path):
    records = logged(300, 9)
    one = begun(tmp_path, records, 200, FEW)
    stream = Stream(one, records, 200)
    stream._at = {at: place for at, place in stream._at.items() if at >= 50}
    with pytest.raises(FeatureBackfillError, match=r"50 of the 200 events before .*--partial goes on with the 150"):
        run(stream, FEW)
    assert not stream.sent_parts
    run(stream, FEW, partial=True)
    assert one.backfills.told["user_count_0@1"]["backfill"] == {
        "events": 150, "missing": 50, "source": "interactions", "parts": 1, "next": 1, "digest": stream.sent_parts[0].digest}
    one.close()


def test_a_definition_that_was_away_is_not_mended(tmp_path):
    records = logged(300, 10)
    one = begun(tmp_path, records, 100, FEW)
    one.close()
    one = shard_at(tmp_path, feature_set=FIRST)
    fold(one, records[100:200], 100)
    one.close()
    one = shard_at(tmp_path, feature_set=FEW)
    assert one.backfills.told["user_count_0@1"] == {"since": 100, "gap": [100, 200]}
    stream = Stream(one, records, 200)
    assert run(stream, FEW) == []
    with pytest.raises(FeatureBackfillError, match=r"taken away at 100 and came back at 200.*write version = 2"):
        run(stream, FEW, names=["user_count_0"])
    with pytest.raises(FeatureBackfillError, match="'none' is no feature"):
        run(stream, FEW, names=["none"])
    one.close()


def test_a_store_of_a_version_before_says_that_it_does_not_know(tmp_path):
    one = shard_at(tmp_path, feature_set=FIRST)
    batch = one.store.batch()
    batch.delete("meta", b"backfills")
    one.store.write(batch)
    one.close()
    one = shard_at(tmp_path, feature_set=FEW)
    told = one.backfills.told
    assert told["user_all@1"] == {"since": None} and told["user_count_0@1"] == {"since": 0}
    assert feature_backfill.state_of(told["user_all@1"]) == "lost" and feature_backfill.state_of(told["user_count_0@1"]) == "whole"
    one.close()
