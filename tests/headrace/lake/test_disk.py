"""What lies in a lake's folder and should not, or does not lie there and should: removed, or named in a sentence."""

import json
import shutil

import pyarrow as pa
import pytest

from headrace.lake import manifest, reader
from headrace.lake.errors import LakeAbsent, LakeDamaged, LakeHeld
from headrace.lake.store import Folder
from tests.headrace.lake import worlds

HOUR = "samples/day=2026-11-30/hour=06"


@pytest.fixture
def lake(tmp_path):
    """Two commits of one hour each, and the topic that they are of."""
    topic = worlds.ListTopic([worlds.sample(n, ts_ms=worlds.BEGIN_MS) for n in range(5)])
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    topic.partitions[0] += [worlds.sample(n, ts_ms=worlds.BEGIN_MS) for n in range(5, 9)]
    worlds.drain(worlds.writer(tmp_path, topic), topic)
    return tmp_path, topic


def test_what_a_commit_without_a_manifest_left_is_removed(lake):
    folder, topic = lake
    left = [f"{HOUR}/00000003.parquet", f"{HOUR}/.00000003.parquet.new", "manifests/.00000003.json.new"]
    for name in left:
        (folder / name).write_bytes(b"half")
    (folder / "samples" / "note.txt").write_text("not ours")
    assert len(worlds.rows(folder)) == 9, "and is nothing to a reader"
    worlds.writer(folder, topic)
    assert not any((folder / name).exists() for name in left) and (folder / "samples" / "note.txt").exists()
    worlds.is_the_lake_of(folder, *topic.partitions)


@pytest.mark.parametrize("number, says", [(1, "00000001.json is missing"), (2, "of a commit whose manifest is missing")])
def test_data_whose_manifest_is_missing_is_not_removed(lake, number, says):
    folder, topic = lake
    (folder / manifest.name_of(number)).unlink()
    if number == 2:  # then the lake ends with commit 1, and commit 2 was never made: a file of commit 3 says that it was
        shutil.copy(folder / HOUR / "00000002.parquet", folder / HOUR / "00000003.parquet")
    before = sorted(folder.rglob("*"))
    with pytest.raises(LakeDamaged, match=says):
        worlds.writer(folder, topic)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("damage, says", [
    (lambda text: text.replace('"rows":4', '"rows":5'), "does not have the sha256 that it says"),
    (lambda text: text[:-40], "is no manifest"),
    (lambda text: "", "is no manifest"),
    (lambda text: json.dumps({"sha256": "", "manifest": 5}), "00000002.json does not have the sha256")])
def test_a_damaged_manifest_is_named(lake, damage, says):
    folder, topic = lake
    path = folder / manifest.name_of(2)
    path.write_text(damage(path.read_text()))
    for act in (lambda: worlds.writer(folder, topic), lambda: reader.read(folder)):
        with pytest.raises(LakeDamaged, match=f"{says}.*restore it from a copy"):
            act()


def test_a_commit_that_does_not_follow_is_named(lake):
    folder, _ = lake
    one = manifest.load(Folder(folder))[1]
    (folder / manifest.name_of(2)).unlink()
    import msgspec

    manifest.write(Folder(folder), msgspec.structs.replace(one, offsets=[manifest.Range(0, 6, 9)]))
    with pytest.raises(LakeDamaged, match=r"begins partition 0 at 6, and the commits before it end at 5"):
        reader.read(folder)
    (folder / manifest.name_of(2)).unlink()
    manifest.write(Folder(folder), msgspec.structs.replace(one, format=99))
    with pytest.raises(LakeDamaged, match=r"format 99.*use a newer one"):
        reader.read(folder)


def test_a_damaged_file_is_named(lake):
    folder, topic = lake
    path = folder / HOUR / "00000001.parquet"
    good = path.read_bytes()
    for bad, says in ((None, "is missing, and a manifest names it"), (good[:-3], "has .* bytes, and its manifest says")):
        path.unlink(missing_ok=True)
        if bad is not None:
            path.write_bytes(bad)
        for act in (lambda: worlds.writer(folder, topic), lambda: reader.read(folder)):
            with pytest.raises(LakeDamaged, match=f"00000001.parquet {says}"):
                act()
    path.write_bytes(good)
    for at in range(0, len(good), 211):  # a bit anywhere, in the footer too, where it may change a name or a type
        path.write_bytes(good[:at] + bytes([good[at] ^ 8]) + good[at + 1 :])
        with pytest.raises(LakeDamaged, match=r"00000001.parquet does not have the sha256"):
            reader.read(folder, columns=["label"])


def test_a_lake_has_one_writer(tmp_path):
    with Folder(tmp_path / "lake").held(), pytest.raises(LakeHeld, match=r"another writer has the lake .*lake.dir"), \
            Folder(tmp_path / "lake").held():
        pass
    with Folder(tmp_path / "lake").held():
        pass


def test_no_lake(tmp_path):
    with pytest.raises(LakeAbsent, match=r"there is no lake in .*nowhere.*lake.enabled"):
        reader.read(tmp_path / "nowhere")


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    store = Folder(tmp_path / "deep" / "lake")
    store.put("a/b/c", pa.py_buffer(b"12"))
    assert store.get("a/b/c") == b"12" and store.names("a") == ["a/b/c"]
    monkeypatch.setattr(store, "_rename", lambda fresh, path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.put("a/b/d", pa.py_buffer(b"12"))
    assert store.names("a") == ["a/b/.d.new", "a/b/c"]
