"""The schema registry as a role: its REST API by uvicorn in a thread, with every schema of ours registered before it is ready."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import uvicorn

from headrace.config import Config
from headrace.schemas.codec import SCHEMAS, schema_text
from headrace.schemas.registry_service import app
from headrace.schemas.registry_store import SchemaStore
from headrace.schemas.topics import settings

log = logging.getLogger(__name__)


def start(config: Config, index: int = 0, **_: object) -> Callable[[], None]:
    """Serve at config.registry.url from DATA_DIR/registry; returns what stops it. Raises OSError when the port is taken."""
    store = SchemaStore(config.stack.data_dir / "registry" / "schemas.jsonl")
    for topic in settings([model.name for model in config.trained], config.kafka.partitions):
        assert topic.schema in SCHEMAS, f"topic {topic.name} names schema {topic.schema}, which has no .avsc file"
        store.register(f"{topic.name}-value", schema_text(topic.schema))
    address = urlsplit(config.registry.url)
    server = uvicorn.Server(uvicorn.Config(app(None, store), host=address.hostname or "127.0.0.1", port=address.port or 80,
                                           log_level="warning", access_log=False))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined, method-assign]  # signals are the process's
    thread = threading.Thread(target=_run, args=(server,), name="registry", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise OSError(f"the registry cannot serve at {config.registry.url}: is the port taken?")
        time.sleep(0.01)
    log.info("registry at %s, %d subjects", config.registry.url, len(store.subjects()))

    def stop() -> None:
        server.should_exit = True
        thread.join(10)

    return stop


def _run(server: uvicorn.Server) -> None:
    try:
        server.run()
    except SystemExit:  # uvicorn exits the process when it cannot bind; `start` says why
        pass
