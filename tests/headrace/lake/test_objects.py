"""A lake on a local S3 server: two writers killed in a loop, what the server refuses, a server that is away and comes back."""

import sys
import time

import httpx
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace import ports
from headrace.config import Config
from headrace.lake import erasing, manifest, objects, reader, rewriting
from headrace.lake.errors import BadRange, LakeAbsent, LakeAway, LakeDamaged, LakeHeld, LakeOvertaken
from headrace.lake.objects import CLAIM, Objects
from headrace.lake.place import Place
from headrace.lake.store import at
from headrace.roles import lake as role
from tests.headrace.lake import unlocked, worlds
from tests.headrace.lake.test_compact import lake_of, samples
from tests.headrace.lake.test_role import Paced, until


@pytest.fixture
def place(bucket):
    return Place(f"s3://{bucket}/some/lake")


def test_a_lake_on_s3_is_written_read_compacted_expired_and_erased_from(place):
    topic = worlds.ListTopic(samples(12), [*samples(3, begin=100), *samples(2, begin=101), "damaged"])
    lake_of(place, topic)
    worlds.is_the_lake_of(place, *topic.partitions)
    assert rewriting.compact(at(place), open_too=True).files[1] == 2
    worlds.is_the_lake_of(place, *topic.partitions)
    topic.partitions[0] += samples(2, begin=12)
    lake_of(place, topic)
    worlds.is_the_lake_of(place, *topic.partitions)
    newest = manifest.load(at(place))[-1].number
    assert len(reader.read(f"{place.where}@{newest}-{newest}")) == 2 and len(reader.read(f"{place.where}@{newest - 1}")) == 15
    erasing.erase(at(place), "user", "u1", 5, 7, {0: 1000, 1: 1000})
    assert {row["user_id"] for row in worlds.rows(place)} == {"u0", "u2"}
    assert rewriting.expire(at(place), worlds.BEGIN_MS + 3_600_000).hours == ["day=2026-11-30/hour=06"]
    assert set(at(place).names("samples")) == {file.path for one in manifest.load(at(place)) for file in one.files}


def test_of_all_who_create_an_object_one_succeeds(place):
    first, second = at(place), at(place)
    first.create("a/b", pa.py_buffer(b"first"))
    with pytest.raises(LakeOvertaken, match=r"some/lake/a/b was made by another"):
        second.create("a/b", pa.py_buffer(b"second"))
    first.create("a/b", pa.py_buffer(b"first"))
    assert second.get("a/b") == b"first" and second.names("a") == ["a/b"] and second.names("b") == []
    second.remove("a/b")
    second.remove("a/b")
    with pytest.raises(FileNotFoundError):
        first.get("a/b")


class Odd(Objects):
    """Answers as `answers` say, one a time, then as it is."""

    def __init__(self, root, *answers):
        super().__init__(unlocked.Requests(lambda: None), root, "odd")
        self.answers = list(answers)

    def _create(self, name, data):
        done, error = self.answers.pop(0) if self.answers else (True, None)
        if done:
            super()._create(name, data)
        if error:
            raise error


class Said(Exception):
    def __init__(self, code):
        self.response = {"Error": {"Code": code}}


def test_an_answer_that_was_lost_and_one_that_says_to_try_again(monkeypatch):
    monkeypatch.setattr("headrace.lake.objects.BUSY_S", 0.0)
    root = unlocked.new_root()
    Odd(root, (True, FileExistsError())).create("one", pa.py_buffer(b"mine"))  # as when a second try finds the first one's object
    Odd(root, (True, Said("PreconditionFailed"))).create("two", pa.py_buffer(b"mine"))
    Odd(root, (False, Said("ConditionalRequestConflict")), (False, Said("409"))).create("three", pa.py_buffer(b"mine"))
    assert [Odd(root).get(name) for name in ("one", "two", "three")] == [b"mine"] * 3
    with pytest.raises(LakeOvertaken):
        Odd(root, *[(False, Said("409"))] * 99).create("four", pa.py_buffer(b"mine"))


def test_a_store_that_overwrites_what_it_is_to_create_holds_no_lake():
    class Overwrites(Objects):
        def _create(self, name, data):
            self.put(name, pa.py_buffer(data))

    unfit = Overwrites(unlocked.Requests(lambda: None), unlocked.new_root(), "unfit")
    for name in ("lock", "rewrite"):
        with pytest.raises(LakeAway, match=r"unfit overwrote create-only.json.*two writers could both commit"), unfit.held(name):
            pass


def test_the_writer_that_came_last_stays(place):
    first, second = at(place), at(place)
    topic = worlds.ListTopic(samples(3))
    assert not second.there()
    with first.held():
        assert second.there(), "though it has not committed anything"
        made = worlds.writer(first, topic)
        made.take([topic.read(0, 0)])
        made.commit()
        with second.held():
            made.take([topic.read(0, 1)])
            with pytest.raises(LakeHeld, match=r"process \d+ on .* writes the lake s3://.*this one has stopped"):
                made.commit()
            worlds.drain(worlds.writer(second, topic), topic)
            second.remove(CLAIM)
            with pytest.raises(LakeDamaged, match=r"writer.json, which this writer put, is gone"), second.held("commit"):
                pass
    worlds.is_the_lake_of(place, *topic.partitions)


@pytest.mark.parametrize("where, says", [
    ("s3://none-of-this-name/lake", r"NoSuchBucket|bucket does not exist; make the bucket, or name another in lake.dir"),
    ("s3://AKIA:hush@bucket/lake", r"holds no secret and no option.*AWS_ACCESS_KEY_ID"),
    ("s3:///lake", r"names no bucket: write s3://BUCKET/PREFIX"),
    ("s3://bucket/lake?endpoint=http://there", r"holds no secret and no option.*lake.endpoint"),
    ("gs://bucket/lake", r"gs:// is not built")])
def test_a_wrong_place_is_named(bucket, where, says):
    with pytest.raises((LakeAway, BadRange), match=says) as told:
        reader.read(where)
    assert "hush" not in str(told.value)


def test_no_lake_at_a_place_that_could_hold_one(place):
    with pytest.raises(LakeAbsent, match=r"there is no lake in s3://lake-\d+/some/lake: "):
        reader.read(place)


def test_wrong_credentials_and_none(place, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(LakeAway, match=r"signature.*check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or lake.profile"):
        reader.read(place)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOBODYATALLXXX")
    with pytest.raises(LakeAway, match=r"does not exist in our records; check AWS_ACCESS_KEY_ID"):
        lake_of(place, worlds.ListTopic(samples(3)))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(LakeAway, match=r"credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where this runs"):
        reader.read(place)
    with pytest.raises(LakeAway, match=r"nobody.*set AWS_ACCESS_KEY_ID"):
        reader.read(place._replace(profile="nobody"))


def test_a_profile_endpoint_and_region_by_settings(place, s3, monkeypatch, tmp_path):
    for name, value in s3.environment.items():
        monkeypatch.delenv(name)
        if (name.startswith("AWS_") and name.endswith("_KEY")) or name.endswith("_ID"):
            with (tmp_path / "credentials").open("a") as file:
                file.write(f"{'' if file.tell() else '[ours]' + chr(10)}{name.lower()} = {value}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    config = Config(**{"lake": {"dir": place.where, "endpoint": s3.url, "region": "eu-west-1", "profile": "ours"}})
    store = at(config.lake_place)
    store.names("samples")
    assert store._files.s3.meta.region_name == "eu-west-1", "which moto does not ask for"
    topic = worlds.ListTopic(samples(3))
    lake_of(config.lake_place, topic)
    worlds.is_the_lake_of(config.lake_place, *topic.partitions)


def figures(config):
    text = httpx.get(f"http://127.0.0.1:{config.lake.http_port}/metrics", trust_env=False).text
    return {one.name: one.value for family in text_string_to_metric_families(text) for one in family.samples if "lake" in one.name}


def ready(config):
    return httpx.get(f"http://127.0.0.1:{config.lake.http_port}/ready", trust_env=False).json()


@pytest.fixture
def config(place, tmp_path):
    made = Config()
    made.stack.data_dir, made.lake.dir, made.lake.commit_s, made.lake.http_port = tmp_path, place.where, 0.05, ports.any_free()
    return made


def test_a_server_that_is_away_and_comes_back(config, s3):
    """It is away before the writer begins, and while it writes: /ready says so, and every row is there once at the end."""
    topic = Paced(samples(9))
    with s3.away():
        stop = role.start(config, 0, topic)
        until(lambda: "did not" in ready(config)["missing"] and s3.url in ready(config)["missing"], "the trouble")
    try:
        until(lambda: figures(config).get("headrace_lake_rows_total") == 9, "what was there")
        with s3.away():
            topic.partitions[0] += samples(9, begin=9)
            until(lambda: "goes on by itself when it answers" in ready(config)["missing"], "the trouble")
        until(lambda: figures(config).get("headrace_lake_rows_total") == 18 and ready(config)["ready"], "what came meanwhile")
    finally:
        stop()
    worlds.is_the_lake_of(config.lake_place, *topic.partitions)


def test_an_earlier_role_stops_and_says_whose_the_lake_is(config, tmp_path):
    topic, other = Paced(samples(9)), config.model_copy(deep=True)
    other.lake.http_port = ports.any_free()
    stops = [role.start(config, 0, topic)]
    try:
        until(lambda: figures(config).get("headrace_lake_rows_total") == 9, "the rows")
        stops.append(role.start(other, 0, topic))
        until(lambda: ready(other)["ready"], "the second one")
        topic.partitions[0] += samples(9, begin=9)
        until(lambda: figures(other).get("headrace_lake_rows_total") == 18, "the rows of the second one")
        until(lambda: "this one has stopped" in ready(config)["missing"], "the end of the first one")
        topic.partitions[0] += samples(9, begin=18)
        until(lambda: figures(other).get("headrace_lake_rows_total") == 27, "the rows of the second one, which goes on alone")
        assert "this one has stopped" in ready(config)["missing"] and ready(other)["ready"]
    finally:
        for stop in stops:
            stop()
    worlds.is_the_lake_of(config.lake_place, *topic.partitions)


def test_an_erasure_beside_a_role_does_not_stop_it(config):
    topic = Paced(samples(6))
    stop = role.start(config, 0, topic)
    try:
        until(lambda: figures(config).get("headrace_lake_rows_total") == 6, "the rows")
        erasing.erase(at(config.lake_place), "user", "u1", 5, 7, {0: 1000, 1: 1000})
        topic.partitions[0] += samples(6, begin=6)
        until(lambda: len(reader.read(config.lake_place)) == 8, "the rows of others")
        until(lambda: ready(config)["ready"], "a writer that goes on")
    finally:
        stop()
    assert erasing.count(at(config.lake_place), "user", "u1") == 0


def test_manifests_are_made_one_by_itself_though_a_writer_goes_on(config, monkeypatch):
    monkeypatch.setattr(role, "OBJECTS_MAX", 2)
    topic = Paced(samples(20))
    stop = role.start(config, 0, topic)
    try:
        until(lambda: figures(config).get("headrace_lake_rows_total") == 20, "twenty rows")
    finally:
        stop()
    store = at(config.lake_place)
    assert len(store.names("bases")) == 1 and len(store.names("manifests")) <= 1
    worlds.is_the_lake_of(config.lake_place, *topic.partitions)


def test_how_long_a_command_waits_for_a_server_that_hangs(place, s3, monkeypatch):
    monkeypatch.setattr(objects, "READ_S", 1)
    with s3.hanging():
        began = time.monotonic()
        with pytest.raises(LakeAway, match=r"did not list bases: Read timeout.*see whether it runs"):
            reader.read(place)
        assert objects.ATTEMPTS <= time.monotonic() - began < 20, "each of its attempts, and no others around them"


def test_without_the_package_it_says_what_to_install(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(LakeAway, match=r"a lake at s3://.* needs the package s3fs: pip install 'headrace\[s3\]'"):
        reader.read(place)


def test_how_long_a_command_waits_for_a_server_that_is_away(place, s3):
    with s3.away():
        began = time.monotonic()
        with pytest.raises(LakeAway, match=r"did not list bases: .*onnect"):
            reader.read(place)
        assert time.monotonic() - began < 30
