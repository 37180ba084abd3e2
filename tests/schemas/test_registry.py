"""The registry as Confluent's own clients see it, its persistence, and its answers to what is wrong."""

from __future__ import annotations

import json
import socket
import warnings

import httpx
import pytest

from headrace.config import Config
from headrace.roles import registry as role
from headrace.schemas.codec import SCHEMAS, Codec, schema_text
from headrace.schemas.errors import RegistryUnavailable, SchemaRefused, UnknownSchema
from headrace.schemas.registry import MIME, RegistryClient
from headrace.schemas.registry_store import SchemaStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    confluent = pytest.importorskip("confluent_kafka.schema_registry")
    from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def config(tmp_path) -> Config:
    config = Config()
    config.stack.data_dir = tmp_path
    config.registry.url = f"http://127.0.0.1:{free_port()}"
    return config


@pytest.fixture
def url(config):
    stop = role.start(config)
    yield config.registry.url
    stop()


RECORD = {"event_id": "e1", "request_id": None, "scene": "feed", "user_id": "u1", "item_id": "i1", "action": "click", "value": 1.0,
          "position": None, "ts_ms": 1_700_000_000_000, "context": {}, "exposure": None}


def test_confluents_serializer_writes_what_our_codec_reads_and_the_other_way_round(url):
    client = confluent.SchemaRegistryClient({"url": url})
    context = SerializationContext("interactions", MessageField.VALUE)
    codec = Codec("interactions", RegistryClient(url))
    written = AvroSerializer(client, schema_text("interactions"))(RECORD, context)
    assert codec.decode(written) == RECORD
    assert AvroDeserializer(client)(codec.encode(RECORD), context) == RECORD
    assert written == codec.encode(RECORD)  # the same schema has the same id


def test_confluents_client(url):
    client = confluent.SchemaRegistryClient({"url": url})
    assert "samples-value" in client.get_subjects()
    latest = client.get_latest_version("samples-value")
    assert client.get_version("samples-value", latest.version).schema_id == latest.schema_id
    assert client.get_versions("samples-value") == [1]
    same = confluent.Schema(schema_text("samples"), "AVRO")
    assert client.register_schema("samples-value", same) == latest.schema_id
    assert client.register_schema("samples-value", same, normalize_schemas=True) == latest.schema_id
    assert client.lookup_schema("samples-value", same).version == 1
    assert client.get_schema(latest.schema_id).schema_str == schema_text("samples")
    assert client.get_compatibility() == "FULL_TRANSITIVE"
    assert client.set_compatibility(level="FULL_TRANSITIVE") == {"compatibility": "FULL_TRANSITIVE"}
    assert client.test_compatibility("samples-value", same)
    other = confluent.Schema(json.dumps({"type": "record", "name": "Sample", "namespace": "org.headrace", "fields": []}), "AVRO")
    assert not client.test_compatibility("samples-value", other)
    with pytest.raises(confluent.SchemaRegistryError) as caught:
        client.register_schema("samples-value", other)
    assert (caught.value.http_status_code, caught.value.error_code) == (409, 409)


def test_flinks_reader_and_people(url):
    with httpx.Client(base_url=url, trust_env=False) as http:
        first = http.get("/subjects/interactions-value/versions/latest").json()
        answer = http.get(f"/schemas/ids/{first['id']}?fetchMaxId=false&subject=")
        assert answer.status_code == 200 and answer.headers["content-type"] == MIME
        assert json.loads(answer.json()["schema"]) == SCHEMAS["interactions"]
        assert http.get("/").json() == {}
        assert http.get("/subjects?subjectPrefix=touched").json() == ["touched.fm-value"]
        assert http.get("/subjects/interactions-value/versions/1/schema").json() == SCHEMAS["interactions"]
        assert http.get("/healthz").json() == {"status": "ok"}
        assert http.get("/ready").json()["ready"]
        assert "headrace_registry_requests_total" in http.get("/metrics").text


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), [
    ("GET", "/schemas/ids/999", None, 404, 40403),
    ("GET", "/subjects/none/versions", None, 404, 40401),
    ("GET", "/subjects/none/versions/latest", None, 404, 40401),
    ("GET", "/subjects/samples-value/versions/9", None, 404, 40402),
    ("GET", "/subjects/samples-value/versions/none", None, 422, 42202),
    ("GET", "/subjects/samples-value/versions/0", None, 422, 42202),
    ("POST", "/subjects/none", {"schema": "\"string\""}, 404, 40401),
    ("POST", "/subjects/samples-value", {"schema": "\"string\""}, 404, 40403),
    ("POST", "/subjects/new/versions", {"schema": "{"}, 422, 42201),
    ("POST", "/subjects/new/versions", {"schema": "[" * 50_000}, 422, 42201),
    ("POST", "/subjects/new/versions", {}, 422, 42201),
    ("POST", "/subjects/new/versions", {"schema": "{}", "schemaType": "JSON"}, 422, 42201),
    ("POST", "/subjects/new/versions", [1], 400, 400),
    ("PUT", "/config", {"compatibility": "NONE"}, 422, 42203),
    ("GET", "/config/samples-value", None, 404, 40408),
    ("DELETE", "/subjects/samples-value", None, 405, 405),
    ("GET", "/nowhere", None, 404, 404),
])
def test_faults_have_confluents_codes(url, method, path, body, status, code):
    answer = httpx.request(method, url + path, json=body, trust_env=False)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert answer.json()["message"]


def test_ids_outlive_the_process_and_a_torn_last_line(config):
    stop = role.start(config)
    client = RegistryClient(config.registry.url)
    before = {name: client.latest(f"{name}-value").id for name in ("interactions", "samples", "vectors")}
    mine = client.register("mine-value", '{"type": "record", "name": "M", "fields": [{"name": "x", "type": "long"}]}')
    client.close()
    stop()
    file = config.stack.data_dir / "registry" / "schemas.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"subject": "torn')
    stop = role.start(config)
    client = RegistryClient(config.registry.url)
    assert {name: client.latest(f"{name}-value").id for name in before} == before
    assert client.latest("mine-value").id == mine
    assert client.register("other-value", '"long"') not in (mine, *before.values())
    client.close()
    stop()
    assert file.read_bytes().startswith(whole)


def test_a_taken_port_is_said(config):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(config.registry.url.rsplit(":", 1)[1])))
        taken.listen()
        with pytest.raises(OSError, match="port taken"):
            role.start(config)


def test_the_client_tells_absent_from_unknown_from_refused(url):
    client = RegistryClient(url)
    with pytest.raises(UnknownSchema):
        client.schema(999)
    with pytest.raises(UnknownSchema):
        client.latest("none")
    with pytest.raises(SchemaRefused) as caught:
        client.register("samples-value", '"string"')
    assert caught.value.code == 409
    with pytest.raises(RegistryUnavailable):
        RegistryClient(f"http://127.0.0.1:{free_port()}", retry_s=0.1).schema(1)
    client.close()


def _record(*fields: dict) -> str:
    return json.dumps({"type": "record", "name": "R", "fields": list(fields)})


X = {"name": "x", "type": "long"}
Y = {"name": "y", "type": "long", "default": 0}


@pytest.mark.parametrize(("texts", "accepted"), [
    ((_record(X), _record(X, Y)), True),
    ((_record(X, Y), _record(X)), True),
    ((_record(X), _record(X, {"name": "y", "type": "long"})), False),  # no default: the old data cannot be read
    ((_record(X, {"name": "y", "type": "long"}), _record(X)), False),  # the old reader has no default
    ((_record({"name": "x", "type": "int"}), _record(X)), False),  # the old reader cannot read a long
    ((_record(X, Y), _record(X), _record(X, {"name": "y", "type": "string", "default": ""})), False),  # only the first version objects
])
def test_full_transitive(texts, accepted):
    store = SchemaStore()
    *earlier, last = texts
    for text in earlier:
        store.register("s", text)
    if accepted:
        assert store.register("s", last) == len(texts)
    else:
        with pytest.raises(SchemaRefused) as caught:
            store.register("s", last)
        assert caught.value.code == 409 and "version" in str(caught.value)


def test_one_schema_has_one_id():
    store = SchemaStore()
    first = store.register("a", '{"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}]}')
    assert store.register("b", '{"name":"R","type":"record",\n"fields":[{"type":{"type":"long"},"name":"x"}]}') == first
    assert store.register("a", '{"type": "record", "name": "R", "doc": "d", "fields": [{"name": "x", "type": "long"}]}') != first
    assert [version.version for version in store.versions("a")] == [1, 2]
