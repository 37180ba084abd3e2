"""What the stack starts of several serving processes."""

import pytest

from headrace.children import children
from headrace.config import Config, ConfigError


def config(**replica):
    return Config(replica=replica)


def test_a_process_for_each_replica(tmp_path):
    made = children(config(addresses=["127.0.0.1:1", "127.0.0.1:2"], http_ports=[3, 4]), ("replica",), tmp_path / "headrace.toml")
    assert [(child.name, child.address) for child in made] == [("replica-0", "127.0.0.1:1"), ("replica-1", "127.0.0.1:2")]
    assert [child.command[child.command.index("--index") + 1] for child in made] == ["0", "1"]
    (one,) = children(Config(), ("replica",), tmp_path / "headrace.toml")
    assert one.name == "replica"


def test_replicas_of_features_are_started_beside_the_shard(tmp_path):
    two = Config(features={"replicas": ["127.0.0.1:1", "127.0.0.1:2"], "replica_http_ports": [3, 4]})
    made = children(two, ("features",), tmp_path / "headrace.toml")
    assert [(child.name, child.address) for child in made[1:]] == [
        ("features-replica-0", "127.0.0.1:1"), ("features-replica-1", "127.0.0.1:2")]
    assert children(two, ("ann",), tmp_path / "headrace.toml")[0].name == "ann"
    two.features.replica_http_ports = [3]
    with pytest.raises(ConfigError, match=r"features\.replica_http_ports 1"):
        children(two, ("features",), tmp_path / "headrace.toml")


def test_a_replica_without_a_health_port_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"replica\.http_ports"):
        children(config(addresses=["127.0.0.1:1", "127.0.0.1:2"], http_ports=[3]), ("replica",), tmp_path / "headrace.toml")
    with pytest.raises(ConfigError, match=r"ps\.http_ports"):
        children(Config(ps={"addresses": ["127.0.0.1:1"]}), ("ps",), tmp_path / "headrace.toml")
