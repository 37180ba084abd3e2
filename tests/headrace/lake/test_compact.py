"""Rewriting a lake: the same rows, each once, wherever it is killed, with a writer beside it; whole hours by age."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.lake import manifest, reader, rewriting, summary
from headrace.lake.errors import BadRange, LakeAbsent, LakeHeld, LakeRewritten
from headrace.lake.store import Folder
from tests.headrace.lake import worlds
from tests.headrace.lake.test_exactly_once import Killed, dying, records

HOUR_MS = 3_600_000


def samples(count, begin=0, hours=2):
    return [worlds.sample(n, ts_ms=worlds.BEGIN_MS + HOUR_MS * (n % hours)) for n in range(begin, begin + count)]


def lake_of(folder, topic, commit_every=1):
    return worlds.drain(worlds.writer(folder, topic), topic, commit_every=commit_every)


def files_on_disk(folder):
    return {path.relative_to(folder).as_posix() for path in (folder / "samples").rglob("*") if path.is_file()}


def named(folder):
    return {file.path for one in manifest.load(Folder(folder)) for file in one.files}


def test_small_files_become_one_and_manifests_too(tmp_path):
    topic = worlds.ListTopic(samples(24), ["bad"])
    lake_of(tmp_path, topic)
    before, told = reader.read(tmp_path), summary.stats(reader.opened(tmp_path))
    made = rewriting.compact(Folder(tmp_path))
    assert made.changed and made.rows == (24, 24) and made.files[1] == 1 + made.files[0] // 2, "the newest hour is open"
    assert made.manifests == (told["commits"], 1) and reader.read(tmp_path).equals(before)
    assert files_on_disk(tmp_path) == named(tmp_path) and len(list((tmp_path / "manifests").iterdir())) == 0
    after = summary.stats(reader.opened(tmp_path))
    assert {**after, "files": 0, "bytes": 0, "manifests": 0, "generation": 0} == {
        **told, "files": 0, "bytes": 0, "manifests": 0, "generation": 0}
    assert rewriting.compact(Folder(tmp_path), open_too=True).files[1] == 2
    assert not rewriting.compact(Folder(tmp_path), open_too=True).changed and reader.read(tmp_path).equals(before)
    worlds.is_the_lake_of(tmp_path, *topic.partitions)


@pytest.mark.parametrize("steps", range(14))
def test_killed_at_each_step_the_rows_are_there_once_and_the_next_one_ends_it(tmp_path, steps):
    topic = worlds.ListTopic(samples(12))
    lake_of(tmp_path, topic)
    rewriting.compact(Folder(tmp_path))
    topic.partitions[0] += samples(6, begin=12)
    lake_of(tmp_path, topic)
    before = reader.read(tmp_path)
    with pytest.raises(Killed):
        rewriting.compact(dying(steps)(tmp_path), open_too=True)
    assert reader.read(tmp_path).equals(before)
    topic.partitions[0] += samples(4, begin=16)  # two of them come twice
    lake_of(tmp_path, topic)
    worlds.is_the_lake_of(tmp_path, *topic.partitions)
    made = rewriting.compact(Folder(tmp_path), open_too=True)
    assert made.files[1] == 2 and files_on_disk(tmp_path) == named(tmp_path)
    worlds.is_the_lake_of(tmp_path, *topic.partitions)


@settings(max_examples=40)
@given(st.data())
def test_a_writer_beside_it_is_not_disturbed(tmp_path_factory, data):
    """Commits and rewritings in any order, some killed; one writer lives on, another one comes: each sample once."""
    folder = tmp_path_factory.mktemp("lake")
    partitions = records(data.draw)
    topic = worlds.ListTopic(*partitions)
    made = worlds.writer(folder, topic)
    at = dict.fromkeys(range(2), 0)
    while any(at[p] < len(partitions[p]) for p in at):
        stops = {p: min(at[p] + data.draw(st.integers(0, 6)), len(partitions[p])) for p in at}
        made.take([topic.read(p, offset) for p in at for offset in range(at[p], stops[p])])
        at = stops
        made.commit()
        match data.draw(st.sampled_from(["nothing", "compact", "killed", "another writer"])):
            case "compact" if manifest.load(Folder(folder)):
                rewriting.compact(Folder(folder), open_too=data.draw(st.booleans()))
            case "killed" if manifest.load(Folder(folder)):
                try:
                    rewriting.compact(dying(data.draw(st.integers(0, 15)))(folder), open_too=True)
                except Killed:
                    pass
            case "another writer":
                made = worlds.writer(folder, topic)
    if any(partitions):
        worlds.is_the_lake_of(folder, *partitions)


def test_what_was_opened_before_says_that_it_is_to_be_read_again(tmp_path):
    topic = worlds.ListTopic(samples(6, hours=1))
    lake_of(tmp_path, topic)
    old = reader.opened(tmp_path)
    rewriting.compact(Folder(tmp_path), open_too=True)
    with pytest.raises(LakeRewritten, match="read it again"):
        list(reader.by_hour(old))


def test_commits_that_were_made_one_are_not_told_apart(tmp_path):
    topic = worlds.ListTopic(samples(9))
    lake_of(tmp_path, topic)
    newest = manifest.load(Folder(tmp_path))[-1].number
    rewriting.compact(Folder(tmp_path))
    topic.partitions[0] += samples(2, begin=9)
    lake_of(tmp_path, topic)
    assert len(reader.read(f"{tmp_path}@{newest}")) == 9 and len(reader.read(f"{tmp_path}@{newest + 1}-{newest + 1}")) == 2
    for wrong in (f"{tmp_path}@{newest - 1}", f"{tmp_path}@2-{newest}"):
        with pytest.raises(BadRange, match="were made one"):
            reader.opened(wrong)


def test_a_lost_base_is_damage_and_not_an_empty_lake(tmp_path):
    topic = worlds.ListTopic(samples(9))
    lake_of(tmp_path, topic)
    rewriting.compact(Folder(tmp_path))
    [base] = (tmp_path / "bases").iterdir()
    base.write_text(base.read_text().replace("click", "clack", 1))
    with pytest.raises(manifest.LakeDamaged, match="sha256"):
        reader.opened(tmp_path)
    base.unlink()
    with pytest.raises(manifest.LakeDamaged, match="was rewritten, and the manifest that names it is missing"):
        worlds.writer(tmp_path, topic)


def test_two_rewritings_do_not_meet_and_an_empty_folder_is_no_lake(tmp_path):
    with pytest.raises(LakeAbsent):
        rewriting.compact(Folder(tmp_path))
    lake_of(tmp_path, worlds.ListTopic(samples(9)))
    with Folder(tmp_path).held("rewrite"), pytest.raises(LakeHeld, match="being rewritten"):
        rewriting.compact(Folder(tmp_path))


def test_old_hours_go_whole(tmp_path):
    topic = worlds.ListTopic(samples(12, hours=4))
    lake_of(tmp_path, topic)
    before_ms = worlds.BEGIN_MS + 2 * HOUR_MS + 5  # within the third hour, which stays
    would = rewriting.expire(Folder(tmp_path), before_ms, dry_run=True)
    assert would.rows == (12, 6) and len(reader.read(tmp_path)) == 12
    done = rewriting.expire(Folder(tmp_path), before_ms)
    assert done.rows == (12, 6) and done.hours == would.hours == ["day=2026-11-30/hour=06", "day=2026-11-30/hour=07"]
    table = reader.read(tmp_path)
    assert sorted(table["offset"].to_pylist()) == [n for n in range(12) if n % 4 >= 2]
    told = summary.stats(reader.opened(tmp_path))
    assert told["dropped"] == 6 and told["records"] == told["rows"] + told["duplicates"] + told["unreadable"] + told["dropped"]
    assert files_on_disk(tmp_path) == named(tmp_path) and not (tmp_path / "samples" / done.hours[0]).exists()
    assert not rewriting.expire(Folder(tmp_path), before_ms).changed
    made = lake_of(tmp_path, topic)
    assert made.positions == {0: 12} and len(reader.read(tmp_path)) == 6, "the topic is not read again"
