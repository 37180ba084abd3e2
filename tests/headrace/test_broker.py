"""The broker's folder is formatted whatever its random id begins with."""

from types import SimpleNamespace

from headrace import broker
from headrace.config import Config


def test_an_id_that_begins_with_a_dash_is_no_option(tmp_path, monkeypatch):
    monkeypatch.setattr(broker.uuid, "uuid4", lambda: SimpleNamespace(bytes=b"\xfb\xef\xbe" + bytes(13)))
    config = Config()
    config.stack.data_dir = tmp_path
    broker.prepare(config)
    meta, = tmp_path.rglob("meta.properties")
    assert "cluster.id=----AAAAAAAAAAAAAAAAAA" in meta.read_text()
