"""The client of the engine. Needs the base install only.

    from headrace import Client
    client = Client("http://127.0.0.1:19080")
    client.emit([{"user_id": "1", "item_id": "50", "action": "click"}])
    client.recommend("1", 10)["items"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import httpx


class EngineError(Exception):
    """The engine refused the call, or has not answered: the message says what and what to do next. `status` is HTTP's, 0 without an answer;
    `field` the parameter to mend, where there is one."""

    def __init__(self, message: str, status: int = 0, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.field = status, field


class Client:
    """Calls an engine at `url`; answers are the JSON of docs/engine.md. Safe between threads. All calls raise EngineError."""

    def __init__(self, url: str = "http://127.0.0.1:19080", timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(timeout=timeout_s, trust_env=False)  # no proxy to a loopback address

    def emit(self, events: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Send one event or several: {"accepted", "refused", "verdicts": one an event}. The accepted ones are in the log."""
        body = [dict(events)] if isinstance(events, Mapping) else [dict(event) for event in events]
        return self._call("POST", "/events", json=body)

    def recommend(self, user: str, n: int = 10, *, scene: str = "feed", context: Mapping[str, str] | None = None,
                  explain: bool = False, preview: bool = False) -> dict[str, Any]:
        """The n best unread items; `context` are fields as in the log's interactions. Impressions are written unless `preview`."""
        asked = {"user": user, "n": n, "scene": scene, "explain": int(explain), "preview": int(preview),
                 "context": [f"{name}={value}" for name, value in (context or {}).items()]}
        return self._call("GET", "/recommend", params=asked)

    def recall(self, user: str, k: int = 10) -> dict[str, Any]:
        """The k items nearest to the user's vector."""
        return self._call("GET", "/recall", params={"user": user, "k": k})

    def similar(self, item: str, k: int = 10) -> dict[str, Any]:
        """The k items nearest to the item's vector."""
        return self._call("GET", "/similar", params={"item": item, "k": k})

    def score(self, user: str, items: Sequence[str], ts_ms: int | None = None,
              context: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Probabilities of the items; `ts_ms` (milliseconds since 1970) makes the answer repeatable. Nothing is written."""
        return self._call("POST", "/score", json={"user": user, "items": list(items), "ts_ms": ts_ms, "context": dict(context or {})})

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, self.url + path, **request)
        except httpx.HTTPError as error:
            raise EngineError(f"the engine at {self.url} does not answer ({type(error).__name__}); is the stack up?"
                              " `headrace status` says") from None
        except (ValueError, TypeError) as error:
            raise EngineError(f"the call cannot be sent as JSON: {error}") from None
        try:
            body = answer.json()
        except ValueError:
            raise EngineError(f"{self.url}{path} answered {answer.status_code} without JSON: is it a headrace engine?",
                              answer.status_code) from None
        if answer.status_code not in (200, 207):
            said = f"{body.get('error', body)}; {body.get('next', '')}".rstrip("; ") if isinstance(body, dict) else str(body)
            raise EngineError(said, answer.status_code, body.get("field") if isinstance(body, dict) else None)
        return body
