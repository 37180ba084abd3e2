"""Tokens and TLS between processes: who shows the token is served, who does not is told so, others are not served in the clear."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from headrace.rpc import access
from headrace.rpc.access import Access
from headrace.rpc.client import Client
from headrace.rpc.errors import Forbidden, Unavailable
from headrace.rpc.owner import Owner
from headrace.rpc.server import Exposed, Server, loopback
from tests.secured.certificates import Authority


@pytest.fixture(autouse=True)
def as_before():
    yield
    access.use(Access())


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pem")).signed("server")


@contextmanager
def served(given: Access, host: str = "127.0.0.1"):
    access.use(given)
    owner = Owner()
    owner.start()
    server = Server(host, 0, {"echo": lambda header, arrays: (header, arrays)}, owner)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        owner.stop()


def call(address: str, given: Access):
    access.use(given)
    client = Client(address, 5.0)
    try:
        return client.call("echo", {"a": 1}, {"x": np.arange(3)})
    finally:
        client.close()


def test_over_tls_with_the_token(pem):
    with served(Access("secret", str(pem.ca), str(pem.cert), str(pem.key)), "0.0.0.0") as address:
        header, arrays = call(address, Access("secret", str(pem.ca)))
        assert header == {"a": 1} and arrays["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("token", ["", "other", "secre", "secret "])
def test_another_token_is_forbidden_and_not_tried_again(pem, token):
    with served(Access("secret", str(pem.ca), str(pem.cert), str(pem.key))) as address:
        access.use(Access(token, str(pem.ca)))
        client = Client(address, 5.0)
        with pytest.raises(Forbidden, match=r"rpc\.token_file"):
            client.call_until(30.0, "echo")
        client.close()


def test_in_the_clear_to_a_server_of_tls_and_with_another_authority(pem, tmp_path):
    with served(Access("secret", str(pem.ca), str(pem.cert), str(pem.key))) as address:
        for given in (Access("secret"), Access("secret", str(Authority(tmp_path).pem))):
            with pytest.raises(Unavailable):
                call(address, given)


def test_a_token_without_tls_on_loopback():
    with served(Access("secret")) as address:
        assert call(address, Access("secret"))[0] == {"a": 1}
        with pytest.raises(Forbidden):
            call(address, Access())


@pytest.mark.parametrize("given", [Access(), Access("secret"), Access("", "", "c", "k")])
def test_others_are_not_served_without_both(given):
    access.use(given)
    with pytest.raises(Exposed, match=r"0\.0\.0\.0.*rpc\.token_file, rpc\.tls_cert and rpc\.tls_key"):
        Server("0.0.0.0", 0, {}, Owner())


def test_hosts():
    assert all(map(loopback, ("127.0.0.1", "localhost", "::1", "127.3.2.1")))
    assert not any(map(loopback, ("0.0.0.0", "10.1.1.1", "::", "features.example")))


def test_a_token_is_in_no_repr():
    assert "secret" not in repr(Access("secret"))
