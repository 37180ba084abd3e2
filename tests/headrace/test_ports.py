"""A default port that is taken becomes the next free one; a configured one is not moved."""

import socket

import pytest

from headrace import ports
from headrace.config import Config


def _listed(value):
    return value if isinstance(value, list) else [value]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Claims of this test only: a stack may run on this machine."""
    monkeypatch.setattr(ports.tempfile, "gettempdir", lambda: str(tmp_path))


def test_two_stacks_that_start_together_choose_other_ports_until_one_is_gone():
    first, second = ports.Claims(), ports.Claims()
    mine, _ = ports.plan(Config(), first)
    theirs, said = ports.plan(Config(), second)  # nobody listens yet
    given = {ports.port_of(address) for section, key in ports.LISTENED for address in _listed(getattr(getattr(Config(), section), key))}
    moved = {ports.port_of(address) for body in theirs.values() for value in body.values() for address in _listed(value)}
    assert not given & moved and len(moved) == len(said) == len(given)
    first.release()
    assert ports.plan(Config(), ports.Claims())[0] == mine
    second.release()


@pytest.fixture
def taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_default_moves_and_is_said(monkeypatch):
    config = Config()
    busy = {ports.port_of(config.engine.url), ports.port_of(config.ps.addresses[0])}
    monkeypatch.setattr(ports, "is_free", lambda port: port not in busy)
    overlay, said = ports.plan(config)
    # 19081 is the registry's and 19101 the second shard's: a port is given once.
    assert overlay == {"engine": {"url": "http://127.0.0.1:19082"}, "ps": {"addresses": ["127.0.0.1:19101", "127.0.0.1:19102"]}}
    assert any("port 19080 is taken" in sentence for sentence in said)


def test_no_port_is_given_twice(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda port: port >= 19200)
    overlay, _ = ports.plan(Config())
    given = [ports.port_of(address) for body in overlay.values() for value in body.values()
             for address in (value if isinstance(value, list) else [value])]
    assert len(given) == len(set(given)) == 17


def test_defaults_go_round_what_was_configured(monkeypatch):
    """A second replica beside the default one: the first moves past it, and is not taken for somebody else who listens there."""
    config = Config(replica={"addresses": ["127.0.0.1:19110", "127.0.0.1:19111"], "http_ports": [19160, 19161]})
    monkeypatch.setattr(ports, "is_free", lambda port: port not in (19110, 19160))
    overlay, said = ports.plan(config)
    assert overlay == {"replica": {"addresses": ["127.0.0.1:19112", "127.0.0.1:19111"], "http_ports": [19162, 19161]}}
    assert said == ["replica.addresses: port 19110 is taken, so 19112", "replica.http_ports: port 19160 is taken, so 19162"]


def test_a_configured_port_is_not_moved(taken):
    config = Config()
    config.engine.url = f"http://127.0.0.1:{taken}"
    with pytest.raises(ports.PortTaken, match=r"engine\.url"):
        ports.plan(config)


def test_an_external_part_needs_no_port(monkeypatch):
    config = Config()
    config.kafka.external = True
    monkeypatch.setattr(ports, "is_free", lambda port: port != ports.port_of(config.kafka.bootstrap))
    assert ports.plan(config) == ({}, [])


def test_forms_of_an_address():
    assert [ports.port_of(a) for a in (7, "h:8", "http://h:9")] == [7, 8, 9]
    assert [ports.moved(a, 5) for a in (7, "h:8", "http://h:9/x")] == [5, "h:5", "http://h:5/x"]


def test_is_free(taken):
    assert not ports.is_free(taken) and ports.answers(taken)
    assert ports.is_free(ports.any_free())


def test_ports_asked_for_together_differ(monkeypatch):
    drawn = iter([20001, 20001, 20002, 20002, 20003])
    monkeypatch.setattr(ports.random, "randrange", lambda *_: next(drawn))
    monkeypatch.setattr(ports, "is_free", lambda port: port != 20002)
    assert ports.some_free(2) == [20001, 20003]


def test_parts_that_are_not_started_keep_their_addresses_whoever_listens_there():
    config = Config()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config.kafka.bootstrap = f"127.0.0.1:{taken.getsockname()[1]}"
        overlay, said = ports.plan(config, parts=("flink", "engine"))
        assert "kafka" not in overlay and not any("kafka" in sentence for sentence in said)
        with pytest.raises(ports.PortTaken):
            ports.plan(config, parts=("kafka",))
