"""What an engine needs before others may reach it; keys by the command line; TLS and keys by our own clients."""

from __future__ import annotations

import datetime
import ipaddress
import socket

import pytest
from typer.testing import CliRunner

from headrace import Client, EngineError
from headrace.access import check, given, loopback
from headrace.children import PARTS, children
from headrace.clock import EngineUnavailable, StackClock
from headrace.commands.keys import app
from headrace.config import Config, ConfigError, Engine
from headrace.engine.access import Access
from headrace.engine.keys import Keys, create
from headrace.roles.engine import _serve
from tests.engine.world import World


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """(certificate, key) of 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "headrace test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
                   .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
                   .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
                   .add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(key, hashes.SHA256()))
    folder = tmp_path_factory.mktemp("pem")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize(("url", "inside"), [
    ("http://127.0.0.1:1", True), ("http://localhost:1", True), ("http://[::1]:1", True), ("http://127.9.9.9", True),
    ("http://0.0.0.0:1", False), ("http://10.0.0.5:1", False), ("http://engine.example:1", False), ("http://[::]:1", False)])
def test_addresses_of_this_machine_alone(url, inside):
    assert loopback(url) is inside


def test_others_may_reach_an_engine_with_keys_and_tls_only(tmp_path, pem):
    cert, key = pem
    keys = tmp_path / "keys.json"
    create(keys, "a", ("events",))
    check(Engine())
    check(Engine(keys_file=keys))
    check(Engine(url="https://0.0.0.0:443", keys_file=keys, tls_cert=cert, tls_key=key))
    tls = {"url": "https://0.0.0.0:1", "tls_cert": cert, "tls_key": key}
    for engine, says in (
            (Engine(url="http://0.0.0.0:1"), "needs https://.* and engine.tls_key and engine.keys_file .headrace keys create."),
            (Engine(url="http://10.0.0.5:1", keys_file=keys), "needs https://"),
            (Engine(**tls), "that needs engine.keys_file"),
            (Engine(url="https://127.0.0.1:1"), "needs engine.tls_cert"),
            (Engine(tls_cert=cert, tls_key=key), "write https://"),
            (Engine(url="ftp://x"), "write http://HOST:PORT"),
            (Engine(**tls, keys_file=tmp_path / "none"), "keys_file is .*no such file")):
        with pytest.raises(ConfigError, match=says):
            check(engine)


def test_a_stack_with_such_an_engine_is_not_begun(tmp_path):
    with pytest.raises(ConfigError, match="needs https://"):
        children(Config(engine=Engine(url="http://0.0.0.0:1")), PARTS, tmp_path / "headrace.toml")


def test_our_own_clients_bring_key_and_trust(tmp_path, pem):
    cert, key = pem
    keys, own = tmp_path / "keys.json", tmp_path / "own"
    own.write_text(create(keys, "own", ("control", "recall")) + "\n")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{s.getsockname()[1]}"
    world = World(tmp_path)
    end = _serve(Access(world.http.app, Keys(keys)), url, cert, key)
    try:
        engine = Engine(url=url, key_file=own, tls_ca=cert)
        StackClock(**given(engine)).set("now", 1_800_000_000_000)
        with Client(**given(engine)) as client:
            assert client.recall("u1").found
            with pytest.raises(EngineError, match="/recommend needs recommend"):
                client.recommend("u1")
        with pytest.raises(EngineUnavailable, match="401"):
            StackClock(**given(Engine(url=url, tls_ca=cert))).state()
        with pytest.raises(EngineError, match="does not answer"):
            Client(url, 0.3, key="x").recall("u1")  # not trusted
    finally:
        end()
        world.close()
    with pytest.raises(ConfigError, match="cannot be used"):
        _serve(world.http.app, url, key, key)
    for wrong in ({"key_file": tmp_path / "none"}, {"tls_ca": key}):
        with pytest.raises(ConfigError):
            given(Engine(**wrong))


def test_keys_by_the_command_line(tmp_path):
    file = ["--file", str(tmp_path / "k.json")]
    made = CliRunner().invoke(app, ["create", "feed", "--scopes", "events, recall", *file])
    assert made.exit_code == 0 and made.stdout.startswith("hr_") and len(made.stdout.splitlines()) == 1
    listed = CliRunner().invoke(app, ["list", *file]).stdout
    assert listed.startswith("feed\tevents,recall\t") and made.stdout.strip() not in listed
    assert "revoked" in CliRunner().invoke(app, ["revoke", "feed", *file]).stdout
    assert CliRunner().invoke(app, ["list", *file]).stdout == ""
