"""The feature shard copied while it runs, and made again elsewhere: as of one moment, whole or refused."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from headrace.commands.features import app
from headrace.config import Config, show
from headrace.features.client import FeatureClient
from headrace.ports import some_free
from headrace.ps.backup import BackupError
from headrace.roles import features
from headrace.rpc.errors import BadMessage
from tests.features.events import T0, columns, random_rows


def configured(folder):
    config, (port, http) = Config(), some_free(2)
    config.stack.data_dir, config.features.address, config.features.http_port = folder, f"127.0.0.1:{port}", http
    config.features.ring_length = 1 << 16
    folder.mkdir()
    (folder / "headrace.toml").write_text(show(config))
    return config


def run(*arguments, config=None):
    more = [] if config is None else ["--config", str(config.stack.data_dir / "headrace.toml")]
    return CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False).stdout


def read(client):
    user = np.arange(1, 20, dtype=np.uint64)
    return client.assemble(user, user, np.zeros((19, 4), np.uint64), np.full(19, T0 + 1_000_000))


@pytest.fixture
def running(tmp_path):
    config = configured(tmp_path / "here")
    stop = features.start(config)
    client = FeatureClient(config.features.address)
    client.freeze_and_fold(*columns(random_rows(500, 1)))
    client.names(["user_id=ann"])
    yield config, client
    client.close()
    stop()


def test_a_copy_is_the_shard_as_of_then_and_goes_on_elsewhere(running, tmp_path):
    config, client = running
    there = str(tmp_path / "copies")
    assert "500 events folded, base@1" in run("backup", there, config=config)
    wanted = read(client)
    client.freeze_and_fold(*columns(random_rows(100, 2, first_offset=500)))
    assert not list(config.stack.data_dir.glob("features-snapshots/*")), "nothing is left of it"
    [kept] = json.loads(run("backups", there, "--json"))
    assert (kept["sequence"], kept["feature_set"]) == (500, "base@1") and kept["bytes"] > 1000
    other = configured(tmp_path / "elsewhere")
    assert "500 events folded" in run("restore", there, config=other)
    stop = features.start(other)
    moved = FeatureClient(other.features.address)
    try:
        np.testing.assert_array_equal(read(moved).numbers, wanted.numbers)
        assert read(moved).sequence == 500 and moved.resolve(np.array([client_key("ann")], np.uint64)) == ["user_id=ann"]
        answer = moved.freeze_and_fold(*columns(random_rows(500, 1) + random_rows(100, 2, first_offset=500)))
        assert answer.status.tolist() == [1] * 500 + [0] * 100, "causes are in it: none is folded twice"
        np.testing.assert_array_equal(read(moved).numbers, read(client).numbers)
    finally:
        moved.close()
        stop()


def client_key(name):
    from headrace.schemas.hashing import feature_key

    return feature_key("user_id", name)


def test_what_is_not_whole_or_was_changed_is_refused(running, tmp_path):
    config, _ = running
    there = tmp_path / "copies"
    run("backup", str(there), config=config)
    [copy] = list(there.iterdir())
    other = configured(tmp_path / "elsewhere")
    with pytest.raises(BackupError, match="not empty"):
        run("restore", str(there), config=config)
    file = next(copy.glob("*.sst"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BackupError, match="sha256"):
        run("restore", str(there), config=other)
    file.unlink()
    with pytest.raises(BackupError, match="refused"):
        run("restore", str(there), config=other)
    assert not (tmp_path / "elsewhere" / "features").exists() and not list((tmp_path / "elsewhere").glob("*restored"))
    (copy / "features.json").unlink()
    assert run("backups", str(there)) == ""
    with pytest.raises(BackupError, match="no whole copy"):
        run("restore", str(there), config=other)
    shutil.rmtree(there)
    with pytest.raises(BackupError, match="no whole copy 'x'"):
        run("restore", str(there), "--name", "x", config=other)


def test_a_place_that_is_none_and_a_name_that_is_none(running, tmp_path):
    config, client = running
    with pytest.raises(BackupError, match="no place"):
        run("backup", "nosuch://bucket/x", config=config)
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupError):
        run("backup", str(tmp_path / "file" / "in"), config=config)
    for name in ("", "../x", "a" * 41, "a/b"):
        with pytest.raises(BadMessage):
            client.snapshot(name)
    assert read(client).sequence == 500
