"""The lake cares for its files by itself, beside its writer."""

import threading
from contextlib import suppress

import pytest

from headrace.lake import care, reader, rewriting
from headrace.lake.errors import LakeAbsent, LakeRewritten
from headrace.lake.store import Folder
from headrace.roles import lake as role
from tests.headrace.lake import worlds
from tests.headrace.lake.test_compact import files_on_disk, lake_of, named, samples
from tests.headrace.lake.test_role import Paced, config, until  # noqa: F401 (a fixture)

HOUR_MS = 3_600_000


def test_small_files_become_one_and_old_hours_go(tmp_path):
    lake_of(tmp_path, worlds.ListTopic(samples(48, hours=4)))
    made = care.care(Folder(tmp_path), keep_days=0.0)
    assert made.rows == (48, 48) and made.files[1] < made.files[0]
    made = care.care(Folder(tmp_path), keep_days=1.5 / 24)
    left = reader.read(tmp_path)
    assert len(left) == made.rows[1] == 24 and files_on_disk(tmp_path) == named(tmp_path)
    assert min(left["ts_ms"].to_pylist()) >= worlds.BEGIN_MS + 2 * HOUR_MS
    assert len(care.care(Folder(tmp_path), keep_days=0.0).hours) == 0 and reader.read(tmp_path).equals(left)
    with pytest.raises(LakeAbsent):
        care.care(Folder(tmp_path / "none"), 0.0)


def test_what_is_in_its_way_is_told_and_tried_again(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    turns, stop = [], threading.Event()

    def failing(store, keep_days):
        turns.append(keep_days)
        if len(turns) == 3:
            stop.set()
        raise LakeAbsent("there is no lake") if len(turns) == 1 else OSError("the disk is full")

    monkeypatch.setattr(care, "care", failing)
    care.keep_caring(Folder(tmp_path), 0.001, 7.0, stop)
    assert turns == [7.0] * 3 and "later: there is no lake" in caplog.text and "failed; again" in caplog.text


def test_the_role_does_it_beside_its_writer(config):  # noqa: F811
    config.lake.care_s, config.lake.keep_days = 0.05, 2.5 / 24
    topic = Paced(samples(60, hours=4))
    stop = role.start(config, 0, topic)
    try:
        folder = config.stack.data_dir / "lake"

        def cared():
            with suppress(LakeAbsent, LakeRewritten):  # between two states of it
                return list((folder / "samples").rglob(f"{rewriting.REWRITTEN}*.parquet")) and len(reader.read(folder)) == 45

        until(cared, "three of four hours, made one")
    finally:
        stop()
    assert files_on_disk(folder) == named(folder)
