"""A broker with SASL and TLS, a registry with a user: reached, and each thing that is wrong named in a sentence in time."""

from __future__ import annotations

import json
import pickle
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace import connect, kafka, secrets
from headrace.commands.connect import app
from headrace.config import Config, ConfigError, Kafka, Registry, load, show
from headrace.ports import any_free
from headrace.schemas.access import (
    KAFKA_JAAS,
    KAFKA_PASSWORD,
    REGISTRY_PASSWORD,
    Cluster,
    SecretsMissing,
    jaas,
    properties_text,
    secret,
)
from headrace.schemas.errors import RegistryUnavailable
from headrace.schemas.registry import RegistryClient
from headrace.streaming import secured as flink_side
from tests.secured.certificates import Authority
from tests.secured.cluster import MECHANISMS, USER, secured_broker, secured_registry, settings


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with secured_broker(tmp_path_factory.mktemp("secured")) as made:
        yield made


def config_of(**kafka_settings):
    return Config(kafka=kafka_settings)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_topics_records_and_offsets_through_sasl_and_tls(broker, mechanism):
    where = config_of(**settings(broker, mechanism)).kafka.cluster
    topic = f"probe-{mechanism.lower()}"
    wanted = type("T", (), {"name": topic, "partitions": 1, "config": lambda self: {}})()
    assert kafka.ensure_topics(where, [wanted]) == [topic]
    producer = kafka.Producer(where, linger_ms=0)
    producer.send(topic, b"k", b"v")
    producer.flush()
    assert [one.value for one in kafka.read_between(where, topic, {}, {0: 1})] == [b"v"]


def test_a_certificate_of_our_own_where_brokers_ask_for_one(broker, tmp_path):
    own = Authority(tmp_path).signed("client")
    with pytest.raises(kafka.KafkaUnavailable):
        kafka.reach(config_of(external=True, bootstrap=broker.mutual, security="SSL", tls_ca=broker.pem.ca).kafka.cluster, 3.0)
    with pytest.raises(kafka.KafkaUnavailable):  # of an authority that the broker does not know
        kafka.reach(config_of(external=True, bootstrap=broker.mutual, security="SSL", tls_ca=broker.pem.ca, tls_cert=own.cert,
                              tls_key=own.key).kafka.cluster, 3.0)
    kafka.reach(config_of(external=True, bootstrap=broker.mutual, security="SSL", tls_ca=broker.pem.ca, tls_cert=broker.pem.cert,
                          tls_key=broker.pem.key).kafka.cluster)


def wrong_password(broker, tmp_path):
    file = tmp_path / "wrong"
    file.write_text("not it")
    return settings(broker) | {"password_file": file}


def unknown_authority(broker, tmp_path):
    return settings(broker) | {"tls_ca": Authority(tmp_path, "other").pem}


WRONG = {
    "a wrong password": (wrong_password, f"does not let '{USER}' in .*kafka.password_file"),
    "a wrong password, scram": (lambda b, t: wrong_password(b, t) | {"mechanism": "SCRAM-SHA-512"}, f"does not let '{USER}' in"),
    "an expired certificate": (lambda b, _: settings(b) | {"bootstrap": b.expired}, "its certificate has expired: the cluster needs a new"),
    "an unknown authority": (unknown_authority, "TLS fails .*kafka.tls_ca"),
    "no TLS": (lambda b, _: {"bootstrap": b.kafka}, "no Kafka broker answers at .*"),
    "an unreachable host": (lambda b, _: settings(b) | {"bootstrap": f"127.0.0.1:{any_free()}"}, "no Kafka broker answers .*refused"),
    "an unknown host": (lambda b, _: settings(b) | {"bootstrap": "kafka.invalid:9092"}, "nobody knows this host .*kafka.bootstrap"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_names_itself_within_ten_seconds(broker, tmp_path, name):
    make, says = WRONG[name]
    began = time.monotonic()
    with pytest.raises(kafka.KafkaUnavailable, match=says):
        kafka.reach(config_of(**make(broker, tmp_path)).kafka.cluster)
    assert time.monotonic() - began < 10


def test_check_tries_each_and_hides_the_password(broker, tmp_path):
    word = "registry-pass"
    file = tmp_path / "registry-password"
    file.write_text(word)
    with secured_registry(tmp_path, broker.pem, "bob", word) as url:
        config = Config(kafka=settings(broker), registry={"external": True, "url": url, "username": "bob", "password_file": file,
                                                          "tls_ca": broker.pem.ca})
        config.flink.url = config.engine.url = f"http://127.0.0.1:{any_free()}"
        (tmp_path / "headrace.toml").write_text(show(config))
        answer = CliRunner().invoke(app, ["check", "--json", "--config", str(tmp_path / "headrace.toml"), "--data", str(tmp_path / "d")])
        found = {one["name"]: one for one in json.loads(answer.output)}
        assert found["kafka"]["ok"] and USER in found["kafka"]["found"]
        assert found["registry"]["ok"] and "as bob" in found["registry"]["found"]
        assert not found["topics"]["ok"] and "interactions" in found["topics"]["found"]
        assert not found["flink"]["ok"] and not found["engine"]["ok"] and answer.exit_code == 1
        assert broker.password.read_text().strip() not in answer.output and word not in answer.output
        file.write_text("other")
        refused = {one.name: one for one in connect.check(config)}["registry"]
        assert not refused.ok and "does not let us in" in refused.found and "registry.password_file" in refused.todo


def test_a_registry_whose_certificate_nobody_signed_is_refused(broker, tmp_path):
    with secured_registry(tmp_path, broker.pem, "bob", "x") as url, pytest.raises(RegistryUnavailable, match="CERTIFICATE_VERIFY"):
        RegistryClient(Registry(url=url).access, retry_s=0).subjects()


def test_secrets_are_their_owners_alone_and_travel_by_file_only(tmp_path):
    (tmp_path / "k").write_text('a"b\\c\n')
    (tmp_path / "r").write_text("größe 🌍")
    config = Config(kafka={"security": "SASL_PLAINTEXT", "mechanism": "SCRAM-SHA-256", "username": "u", "password_file": tmp_path / "k"},
                    registry={"username": "v", "password_file": tmp_path / "r"})
    config.stack.data_dir = tmp_path
    written = secrets.write(config, tmp_path / "secrets")
    assert {path.name for path in written} == {secrets.SECRETS, secrets.LOGIN}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in written)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    at_flink = secrets.there(config)
    copied = pickle.loads(pickle.dumps(at_flink))
    assert copied[0].librdkafka()["sasl.password"] == 'a"b\\c'
    assert copied[1].httpx()["auth"] == ("v", "größe 🌍")
    text = repr(at_flink) + str(flink_side.connector(at_flink[0], {})) + str(flink_side.registry(at_flink[1], {}))
    assert "a\"b" not in text and "größe" not in text
    assert "a\"b" not in repr(config.kafka.cluster) and "größe" not in show(config)
    with pytest.raises(AssertionError, match="must not travel"):
        pickle.dumps(config.kafka.cluster)


@given(st.dictionaries(st.sampled_from([KAFKA_PASSWORD, REGISTRY_PASSWORD, KAFKA_JAAS]),
                       st.text(st.characters(exclude_categories=["Cs"]), max_size=30)))
def test_a_secret_comes_back_as_it_was(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("s") / "f"
    file.write_text(properties_text(values), encoding="ascii")
    assert {name: secret(str(file), name) for name in values} == values


def test_a_file_of_secrets_that_lacks_one_says_how_to_write_it(tmp_path):
    (tmp_path / "f").write_text("other=x\n")
    for file in ("f", "absent"):
        with pytest.raises(SecretsMissing, match="headrace connect secrets"):
            secret(str(tmp_path / file), KAFKA_PASSWORD)
        with pytest.raises(SecretsMissing):
            Cluster("a:1", "SASL_SSL", "PLAIN", username="u", secrets=str(tmp_path / file)).librdkafka()


def test_jaas_quotes_what_it_must():
    assert jaas("PLAIN", "u", 'a"b\\', "x") == 'x.common.security.plain.PlainLoginModule required username="u" password="a\\"b\\\\";'
    assert "scram.ScramLoginModule" in jaas("SCRAM-SHA-512", "u", "p")


@pytest.mark.parametrize(("section", "key", "name", "says"), [
    (Kafka, "client_properties", "sasl.password", "holds a secret"), (Kafka, "connector_properties", "sasl.jaas.config", "holds a secret"),
    (Kafka, "client_properties", "bootstrap.servers", "set by headrace itself"),
    (Kafka, "connector_properties", "config.providers.x.class", "set by headrace itself"),
    (Registry, "connector_properties", "basic.auth.user.info", "holds a secret")])
def test_what_must_not_be_passed_through_is_refused(section, key, name, says):
    with pytest.raises(ValueError, match=says):
        section(**{key: {name: "x"}})


def test_what_is_passed_through_arrives_and_comes_back_from_a_file(tmp_path):
    config = Config(kafka={"client_properties": {"client.id": "me"}, "connector_properties": {"client.dns.lookup": "use_all_dns_ips"}})
    (tmp_path / "headrace.toml").write_text(show(config))
    again = load(tmp_path / "headrace.toml", environ={})
    assert again == config and again.kafka.cluster.librdkafka()["client.id"] == "me"
    assert flink_side.connector(again.kafka.cluster, again.kafka.connector_properties) == {"client.dns.lookup": "use_all_dns_ips"}


def test_a_user_without_a_password_and_files_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"kafka.password_file, or set HEADRACE_KAFKA_PASSWORD"):
        _ = Kafka(security="SASL_SSL", username="u").cluster
    with pytest.raises(ConfigError, match=r"needs kafka.username"):
        _ = Kafka(security="SASL_SSL").cluster
    with pytest.raises(ConfigError, match=r"kafka.tls_ca is .*no such file"):
        _ = Kafka(tls_ca=tmp_path / "absent").cluster
    with pytest.raises(ConfigError, match=r"registry.password_file .*cannot be read"):
        _ = Registry(username="u", password_file=tmp_path / "absent").access
    monkeypatch.setenv("HEADRACE_KAFKA_PASSWORD", "from outside")
    assert Kafka(security="SASL_SSL", username="u").cluster.librdkafka()["sasl.password"] == "from outside"


def test_flink_elsewhere_needs_the_place_of_its_secrets(tmp_path):
    (tmp_path / "k").write_text("p")
    config = Config(kafka={"security": "SASL_PLAINTEXT", "username": "u", "password_file": tmp_path / "k"}, flink={"external": True})
    with pytest.raises(ConfigError, match=r"flink.secrets_dir"):
        secrets.there(config)
    config.flink.secrets_dir = "/etc/headrace/"
    assert secrets.there(config)[0].secrets == "/etc/headrace/headrace-secrets.properties"
