"""A replica as a process would have it: role beside role, a client that asks it first, a shard that goes and comes."""

import time

import httpx
import numpy as np
import pytest

from headrace.config import Config
from headrace.features.client import FeatureClient
from headrace.ports import some_free
from headrace.roles import features, features_replica
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError, Unavailable, UnknownVerb
from tests.features.events import T0, columns, random_rows


@pytest.fixture
def config(tmp_path):
    a, b, c, d = some_free(4)
    config = Config()
    config.stack.data_dir, config.features.address, config.features.http_port = tmp_path, f"127.0.0.1:{a}", b
    config.features.replicas, config.features.replica_http_ports, config.features.ring_length = [f"127.0.0.1:{c}"], [d], 1 << 16
    return config


def until(true, what):
    ends = time.monotonic() + 60
    while not true():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


def page(config, path):
    return httpx.get(f"http://127.0.0.1:{config.features.replica_http_ports[0]}/{path}", trust_env=False)


def read(client):
    user = np.arange(1, 20, dtype=np.uint64)
    return client.assemble(user, user, np.zeros((19, 4), np.uint64), np.full(19, T0 + 1_000_000))


def test_it_copies_follows_and_answers_while_the_shard_is_away(config):
    stop = features.start(config)
    writer = FeatureClient(config.features.address)
    writer.freeze_and_fold(*columns(random_rows(300, 1)))
    end = features_replica.start(config)
    reader = FeatureClient(config.features.address, replicas=config.features.replicas, deadline_s=0.0)
    try:
        until(lambda: page(config, "ready").status_code == 200, "it has copied")
        writer.freeze_and_fold(*columns(random_rows(300, 2, first_offset=300)))
        until(lambda: read(reader).sequence == 600, "it has followed")
        np.testing.assert_array_equal(read(reader).numbers, read(writer).numbers)
        assert reader.user(3).recent.tolist() == writer.user(3).recent.tolist()
        writer.decide("freeze", "user_ctr", "a test", "to see it told")
        until(lambda: read(reader).masked == ("user_ctr",), "what is frozen to its default is told")
        writer.close()
        stop()
        stop = None
        assert read(reader).sequence == 600, "with what it has"
        with pytest.raises(Unavailable):
            reader.popular(3)
        stop = features.start(config)
        writer = FeatureClient(config.features.address)
        writer.freeze_and_fold(*columns(random_rows(100, 3, first_offset=600)))
        until(lambda: read(reader).sequence == 700, "it follows the one that came back")
        metrics = page(config, "metrics").text
        assert "headrace_features_sequence 700.0" in metrics and "headrace_features_replica_behind 0.0" in metrics
    finally:
        end()
        assert read(reader).sequence == 700, "the shard is asked when no replica answers"
        reader.close()
        writer.close()
        if stop is not None:
            stop()


def test_before_it_has_copied_it_says_so_and_answers_nobody(config):
    end = features_replica.start(config)
    raw = Client(config.features.replicas[0])
    try:
        until(lambda: config.features.address in page(config, "ready").text, "whom it waits for is told")
        assert page(config, "ready").status_code == 503 and "headrace_features_sequence 0.0" in page(config, "metrics").text
        with pytest.raises(Unavailable, match="are being copied"):
            raw.call("user", {}, {"user": np.ones(1, np.uint64)})
        with pytest.raises(UnknownVerb, match="assemble, stats, totals, user"):
            raw.call("names", {"names": ["a=b"]})
    finally:
        raw.close()
        end()


def test_another_feature_set_and_a_shard_that_nobody_may_follow_are_told(config, tmp_path):
    file = tmp_path / "features.toml"
    file.write_text('[feature.user_pressed]\nentity = "user"\nreducer = "count"\nwhere = { action = "click" }\n')
    other = config.model_copy(deep=True)
    other.features.definitions = [file]
    stop, end = features.start(config), features_replica.start(other)
    try:
        until(lambda: "same files" in page(config, "ready").text, "the reason is told")
    finally:
        end()
        stop()
    alone = config.model_copy(deep=True)
    alone.features.replicas, alone.stack.data_dir = [], tmp_path / "alone"
    stop, end = features.start(alone), features_replica.start(config)
    try:
        until(lambda: "features.replicas" in page(config, "ready").text, "a shard that was started without replicas")
        with pytest.raises(RpcError, match=r"features\.replicas"):
            Client(config.features.address).call("blocks", {}, {})
    finally:
        end()
        stop()
