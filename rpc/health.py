"""/healthz, /ready and /metrics for a role whose main port speaks Flight."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest


class Health:
    """Serves at http://127.0.0.1:port; `ready` returns "" when ready, else what is missing. Port 0 takes a free one (read `port`)."""

    def __init__(self, port: int, ready: Callable[[], str], registry: CollectorRegistry = REGISTRY) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._answer(200, "application/json", b'{"status": "ok"}')
                elif self.path == "/ready":
                    missing = ready()
                    body = json.dumps({"ready": not missing, "missing": missing}).encode()
                    self._answer(503 if missing else 200, "application/json", body)
                elif self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                else:
                    self._answer(404, "application/json", b'{"error": "here are /healthz, /ready and /metrics"}')

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
