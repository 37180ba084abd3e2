"""Jars: exact bytes or none."""

import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from headrace import jar_bundle, jars, maven
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


def test_a_bundle_brings_the_same_bytes_where_nothing_can_be_downloaded(tmp_path):
    there, here, file = tmp_path / "there", tmp_path / "here", tmp_path / "jars.tar"
    jars.fetch(there, [ONE, TWO], Source(one=b"one", two=b"two"))
    assert jar_bundle.bundle(there, [ONE, TWO], file) == file.stat().st_size
    assert jar_bundle.install(file, here, [ONE, TWO]) == [ONE, TWO]
    assert jar_bundle.install(file, here, [ONE, TWO]) == []
    assert {path.name: path.read_bytes() for path in here.iterdir()} == {ONE.file: b"one", TWO.file: b"two"}
    assert {path.name for path in tmp_path.iterdir()} == {"there", "here", "jars.tar"}


def test_a_bundle_of_what_is_not_there_is_not_begun(tmp_path):
    with pytest.raises(JarsError, match="headrace jars fetch"):
        jar_bundle.bundle(tmp_path, [ONE], tmp_path / "jars.tar")
    assert not (tmp_path / "jars.tar").exists()


@pytest.mark.parametrize(("body", "says"), [(b"evil", "refused: one-1.0.jar"), (None, "lacks one-1.0.jar")])
def test_a_bundle_with_other_bytes_or_without_a_jar_is_refused_and_leaves_nothing(tmp_path, body, says):
    file, here = tmp_path / "jars.tar", tmp_path / "here"
    with tarfile.open(file, "w") as tar:
        for name, content in ((ONE.file, body), ("../outside.jar", b"x")):
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    with pytest.raises(JarsError, match=says):
        jar_bundle.install(file, here, [ONE])
    assert list(here.iterdir()) == [] and not (tmp_path / "outside.jar").exists()


def test_what_is_no_bundle_says_so(tmp_path):
    (tmp_path / "x").write_text("no tar")
    for name in ("x", "absent"):
        with pytest.raises(JarsError, match="cannot be read as a bundle"):
            jar_bundle.install(tmp_path / name, tmp_path / "here", [ONE])


def test_a_mirror_is_asked_instead_of_the_public_repository(tmp_path):
    """A Maven repository on this machine, by HTTP, that notes what it is asked."""
    body, asked = b"from the mirror", []
    wanted = Jar("flink", "org.example:mirrored:1.0", hashlib.sha256(body).hexdigest(), len(body))

    class Mirror(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            known = self.path.endswith("mirrored-1.0.jar")
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body) if known else 0))
            self.end_headers()
            if known:
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"http://127.0.0.1:{server.server_address[1]}/maven/"
        assert jars.fetch(tmp_path, [wanted], maven.download(None, where)) == [wanted]
        server.shutdown()
    assert "/maven/org/example/mirrored/1.0/mirrored-1.0.jar" in asked
