"""The whole loop on what a company has: Kafka with SASL and TLS, a registry with a user, an engine with keys, Flight with a token.

No secret is found afterwards where people look: logs, metrics, Flink's REST API, command lines, what is left on disk.
"""

from __future__ import annotations

import json
import re
import secrets as random_secrets
import time
import uuid
from pathlib import Path

import httpx
import psutil
import pytest
from confluent_kafka import SerializingProducer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer

from headrace import Client, kafka, state
from headrace.access import given
from headrace.config import Config, load, show
from headrace.ports import any_free
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from tests.end_to_end.conftest import headrace, towards, with_free_ports
from tests.end_to_end.outside import until
from tests.secured.cluster import secured_broker, secured_registry, settings

ROWS = 600


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    """(the configuration file, its Config, every secret by name) of a stack on a secured cluster."""
    folder = tmp_path_factory.mktemp("company")
    words = {name: f"planted-{name}-{random_secrets.token_hex(8)}" for name in ("registry", "rpc")}
    for name, word in words.items():
        (folder / name).write_text(word + "\n")
    with secured_broker(folder) as broker, secured_registry(folder, broker.pem, "bob", words["registry"]) as registry:
        keyed = headrace("keys", "create", "own", "--scopes", "events,recall,recommend,control", "--file", str(folder / "keys.json"))
        assert keyed.returncode == 0, keyed.stderr
        words["key"] = re.search(r"[A-Za-z0-9_-]{40,}", keyed.stdout).group(0)
        words["kafka"] = broker.password.read_text(encoding="utf-8").strip()
        (folder / "own.key").write_text(words["key"])
        body = with_free_ports(Config()).model_dump()
        body["kafka"] |= settings(broker, "SCRAM-SHA-512")
        body["registry"] |= {"external": True, "url": registry, "username": "bob", "password_file": folder / "registry",
                             "tls_ca": broker.pem.ca}
        body["rpc"] |= {"token_file": folder / "rpc", "tls_ca": broker.pem.ca, "tls_cert": broker.pem.cert, "tls_key": broker.pem.key}
        body["engine"] |= {"url": body["engine"]["url"].replace("http:", "https:"), "keys_file": folder / "keys.json",
                           "key_file": folder / "own.key", "tls_cert": broker.pem.cert, "tls_key": broker.pem.key, "tls_ca": broker.pem.ca}
        body["stack"]["data_dir"] = folder / "data"
        file = folder / "headrace.toml"
        file.write_text(show(Config(**body)))
        started = headrace("up", "--detach", "--config", str(file))
        try:
            assert started.returncode == 0, started.stdout + started.stderr
            yield file, load(file, environ={}), words
        finally:
            stopped = headrace("down", "--config", str(file))
            assert stopped.returncode == 0, stopped.stderr


@pytest.fixture(scope="module")
def report(company, tmp_path_factory):
    """What became of a small log that was sent through the four jobs."""
    file, config, _ = company
    run, folder = towards(config), tmp_path_factory.mktemp("log")
    submitted = run("jobs", "submit", cwd=file.parent)
    assert submitted.returncode == 0, submitted.stderr
    lines = ["user,item,ts,clicked", *(f"u{row % 40},i{row % 25},{1_700_000_000 + row},{int(row % 3 == 0)}" for row in range(ROWS))]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    (folder / "m.toml").write_text('time_unit = "s"\n[columns]\nuser_id = "user"\nitem_id = "item"\nts = "ts"\nlabel = "clicked"\n')
    sent = run("replay", str(folder / "log.csv"), "--mapping", str(folder / "m.toml"), "--clock", "now", "--speed", "max",
               "--report", str(folder / "report.json"), cwd=file.parent)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    return json.loads((folder / "report.json").read_text())


def test_every_row_is_learnt_once(report):
    assert report["rows"] == report["impressions"] == report["samples"] == ROWS
    assert report["samples_applied"] == [ROWS, ROWS]
    assert (report["positives"], report["dead_letters"]) == (ROWS // 3, 0)


def test_a_recommendation_is_served_and_an_event_taken(company, report):
    _, config, _ = company
    with Client(**given(config.engine)) as client:
        assert client.recommend("u1", 5, preview=True).items
        assert client.emit({"user_id": "u1", "item_id": "i1", "action": "click"}).accepted == 1


def test_a_stock_producer_with_sasl_and_a_registry_with_a_user(company, report):
    _, config, words = company
    cluster, registry = config.kafka.cluster, config.registry
    client = SchemaRegistryClient({"url": registry.url, "basic.auth.user.info": f"bob:{words['registry']}",
                                   "ssl.ca.location": str(registry.tls_ca)})
    schema = client.get_latest_version("interactions-value").schema.schema_str
    serializer = AvroSerializer(client, schema, conf={"auto.register.schemas": False, "use.latest.version": True})
    producer = SerializingProducer({**cluster.librdkafka(), "partitioner": "murmur2_random", "value.serializer": serializer,
                                    "key.serializer": lambda user, _: user.encode()})
    user, start = f"stock-{uuid.uuid4().hex[:8]}", {p: high for p, (_, high) in kafka.watermarks(cluster, "enriched").items()}
    producer.produce("interactions", key=user, value={
        "event_id": str(uuid.uuid4()), "request_id": None, "scene": "feed", "user_id": user, "item_id": "i1", "action": "impression",
        "value": 1.0, "position": None, "ts_ms": time.time_ns() // 1_000_000, "context": {}, "exposure": None})
    assert producer.flush(10) == 0
    codec = Codec("enriched", RegistryClient(registry.access))

    def arrived():
        stop = {p: high for p, (_, high) in kafka.watermarks(cluster, "enriched").items()}
        return any(codec.decode(one.value)["user_id"] == user for one in kafka.read_between(cluster, "enriched", start, stop) if one.value)

    until(arrived, "the event of the stock producer in enriched", 60)


def test_check_says_that_all_is_well(company, report):
    file, config, words = company
    found = towards(config)("connect", "check", "--json", cwd=file.parent)
    assert found.returncode == 0, found.stdout + found.stderr
    assert [one["name"] for one in json.loads(found.stdout) if one["ok"]] == ["kafka", "topics", "registry", "flink", "secrets for flink",
                                                                              "engine"]
    assert not any(word in found.stdout for word in words.values())


def planted(words, text):
    """Names of the secrets that are in `text`, as they are or as JSON and Java write them."""
    forms = {name: {word, json.dumps(word)[1:-1], word.replace("\\", "\\\\").replace('"', '\\"')} for name, word in words.items()}
    return sorted(name for name, some in forms.items() if any(form in text for form in some))


def test_no_secret_is_where_people_look(company, report):
    file, config, words = company
    data, run = config.stack.data_dir, towards(config)
    places = {}
    for path in data.rglob("*"):
        if path.is_file() and path.parent.name != "secrets":
            places[str(path)] = path.read_bytes().decode("utf-8", "replace")
    for arguments in (("status",), ("config", "show"), ("jobs", "list"), ("doctor",)):
        done = run(*arguments, cwd=file.parent)
        places[" ".join(arguments)] = done.stdout + done.stderr
    for port in (config.features.http_port, *config.ps.http_ports, *config.replica.http_ports, config.ann.http_port):
        places[f"metrics of {port}"] = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    access = given(config.engine)
    places["metrics of the engine"] = httpx.get(f"{config.engine.url}/metrics", verify=access["verify"], timeout=10,
                                                headers={"Authorization": f"Bearer {access['key']}"}).text
    flink = config.flink.url
    paths = ["/config", "/jobmanager/config", "/jobmanager/environment", "/jobmanager/log", "/jobmanager/stdout", "/jobs/overview",
             "/taskmanagers"]
    for job in httpx.get(f"{flink}/jobs", timeout=10).json()["jobs"]:
        paths += [f"/jobs/{job['id']}{part}" for part in ("", "/config", "/plan", "/checkpoints", "/exceptions", "/jobmanager/config")]
    for path in paths:
        places[path] = httpx.get(flink + path, timeout=10).text
    pids = [row["pid"] for row in state.read(data)["processes"].values()]
    for process in [psutil.Process(pid) for pid in pids]:
        for one in [process, *process.children(recursive=True)]:
            places[f"command line of {one.pid}"] = " ".join(one.cmdline())
    assert {name: found for name, text in places.items() if (found := planted(words, text))} == {}
    # The look sees what stands there: the user's name, and a secret that is written as each of these writes it.
    assert any(config.registry.url in text for text in places.values()) and len(places) > 40
    assert all(planted(words, json.dumps({"a": word})) == [name] == planted(words, f"x{word}y") for name, word in words.items())


def test_a_wrong_password_ends_at_once_and_names_itself(company, tmp_path):
    file, _, words = company
    (tmp_path / "wrong").write_text("not it")
    body = load(file, environ={}).model_dump()
    body["kafka"]["password_file"] = tmp_path / "wrong"
    body["stack"]["data_dir"] = tmp_path / "data"
    wrong = tmp_path / "headrace.toml"
    wrong.write_text(show(with_own_ports(Config(**body))))
    for arguments in (("up",), ("connect", "check", "--only", "kafka", "--json")):
        ended = headrace(*arguments, cwd=tmp_path)
        assert ended.returncode == 1, ended.stdout + ended.stderr
        said = ended.stdout + ended.stderr
        assert "does not let" in said.replace("\n", " ") and "password_file" in said and "Traceback" not in said
        assert words["kafka"] not in said and "not it" not in said


def with_own_ports(config: Config) -> Config:
    body = with_free_ports(config).model_dump()
    for section in ("kafka", "registry"):
        body[section] = getattr(config, section).model_dump()
    body["flink"]["url"] = f"http://127.0.0.1:{any_free()}" if not config.flink.external else config.flink.url
    return Config(**body)


def test_services_of_ours_beyond_loopback_are_refused_without_token_and_tls(tmp_path: Path):
    (tmp_path / "headrace.toml").write_text(f'[features]\naddress = "0.0.0.0:{any_free()}"\n[stack]\ndata_dir = "{tmp_path / "data"}"\n')
    ended = headrace("up", "--config", str(tmp_path / "headrace.toml"))
    assert ended.returncode == 2 and "rpc.token_file, rpc.tls_cert and rpc.tls_key" in ended.stderr
