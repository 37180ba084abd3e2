"""Jars: exact bytes or none."""

import hashlib

import pytest

from headrace import jars
from headrace.jars import Jar, JarsError


def jar(name: str, body: bytes) -> Jar:
    return Jar("kafka", f"org.example:{name}:1.0", hashlib.sha256(body).hexdigest(), len(body))


ONE, TWO = jar("one", b"one"), jar("two", b"two")


class Source:
    """A repository that holds bodies by coordinate, and remembers what was asked of it."""

    def __init__(self, **bodies: bytes) -> None:
        self.bodies, self.asked = bodies, []

    def __call__(self, wanted, staging):
        self.asked.append(wanted.file)
        file = staging / "org" / wanted.file
        file.parent.mkdir(parents=True)
        file.write_bytes(self.bodies[wanted.coordinate.split(":")[1]])
        return file


def test_what_is_missing_is_downloaded_and_once(tmp_path):
    source = Source(one=b"one", two=b"two")
    assert jars.fetch(tmp_path, [ONE, TWO], source) == [ONE, TWO]
    assert jars.fetch(tmp_path, [ONE, TWO], source) == []
    (tmp_path / ONE.file).unlink()
    assert jars.fetch(tmp_path, [ONE, TWO], source) == [ONE]
    assert source.asked == [ONE.file, TWO.file, ONE.file]
    assert sorted(path.name for path in tmp_path.iterdir()) == [ONE.file, TWO.file]


def test_a_changed_byte_is_refused(tmp_path):
    (tmp_path / ONE.file).write_bytes(b"onE")
    with pytest.raises(JarsError, match=r"one-1\.0\.jar is not the file.*headrace jars fetch"):
        jars.fetch(tmp_path, [ONE], Source())


def test_a_download_with_other_bytes_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(JarsError, match=r"refused: the download of one-1\.0\.jar"):
        jars.fetch(tmp_path, [ONE], Source(one=b"evil"))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_leaves_nothing_under_the_name(tmp_path):
    def broken(wanted, staging):
        staging.mkdir()
        (staging / "half").write_bytes(b"o")
        raise OSError("connection lost")

    with pytest.raises(OSError, match="lost"):
        jars.fetch(tmp_path, [ONE], broken)
    assert list(tmp_path.iterdir()) == []


def test_the_committed_lock_covers_what_is_wanted():
    locked = jars.locked()
    names = {entry.coordinate for entry in locked}
    for group in jars.wanted():
        assert set(group.coordinates) <= names
    assert len({entry.file for entry in locked}) == len(locked)
    assert all(len(entry.sha256) == 64 for entry in locked)
    assert any(entry.coordinate.startswith("org.apache.kafka:kafka-clients:4.") for entry in locked)


def test_lines_of_the_lock_come_back(tmp_path):
    (tmp_path / "jars.lock").write_text("# head\n" + ONE.line() + "\n")
    assert jars.locked(tmp_path / "jars.lock") == [ONE]


def test_a_cache_folder_of_ones_own(tmp_path):
    assert jars.folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "headrace" / "jars"
