"""The client of a schema registry (headrace's own or Confluent's): register, read by id, read the newest."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import httpx

from headrace.schemas.access import Registry
from headrace.schemas.errors import RegistryUnavailable, SchemaRefused, UnknownSchema
from headrace.schemas.registry_store import Version

MIME = "application/vnd.schemaregistry.v1+json"
_PAUSE_S = 0.2
_REFUSED = "the registry at {} does not let us in (status {}): look at registry.username and registry.password_file"


class RegistryClient:
    """Calls a registry: its URL, or how it is reached. Safe between threads. Tries for `retry_s` seconds when nobody answers or it
    fails (5xx)."""

    def __init__(self, where: Registry | str, *, timeout_s: float = 5.0, retry_s: float = 2.0) -> None:
        registry = where if isinstance(where, Registry) else Registry(where)
        self.url = registry.url.rstrip("/")
        self._retry_s = retry_s
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, headers={"Accept": MIME, "Content-Type": MIME}, trust_env=False,
                                  **registry.httpx())

    def register(self, subject: str, text: str) -> int:
        """The id of the schema `text`, registered under `subject`. Raises SchemaRefused (incompatible or invalid), RegistryUnavailable."""
        return int(self._call("POST", f"/subjects/{quote(subject, safe='')}/versions", {"schema": text})["id"])

    def schema(self, schema_id: int) -> str:
        """The text of an id. Raises UnknownSchema, RegistryUnavailable."""
        return self._call("GET", f"/schemas/ids/{schema_id}")["schema"]

    def latest(self, subject: str) -> Version:
        """The newest version of a subject. Raises UnknownSchema, RegistryUnavailable."""
        answer = self._call("GET", f"/subjects/{quote(subject, safe='')}/versions/latest")
        return Version(answer["subject"], answer["version"], answer["id"], answer["schema"])

    def subjects(self) -> list[str]:
        """Every subject. Raises RegistryUnavailable."""
        return list(self._call("GET", "/subjects"))

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        until = time.monotonic() + self._retry_s
        while True:
            try:
                answer = self._http.request(method, path, json=body)
                fault = "" if answer.status_code < 500 and answer.status_code != 429 else f"status {answer.status_code}"
            except httpx.HTTPError as error:
                answer, fault = None, f"{type(error).__name__}: {error}"
            if answer is not None and not fault:
                return self._answer(answer)
            if time.monotonic() >= until:
                raise RegistryUnavailable(f"{self.url}{path}: {fault}; is the registry running? (`headrace status`)")
            time.sleep(_PAUSE_S)

    def _answer(self, answer: httpx.Response) -> Any:
        if answer.status_code in (401, 403):
            raise RegistryUnavailable(_REFUSED.format(self.url, answer.status_code))
        try:
            body = answer.json()
        except ValueError:
            raise RegistryUnavailable(f"{answer.url} answers no JSON (status {answer.status_code}): is it a schema registry?") from None
        if answer.status_code == 200:
            return body
        code, message = body.get("error_code", answer.status_code), body.get("message", answer.text[:200])
        if answer.status_code == 404:
            raise UnknownSchema(message)
        raise SchemaRefused(code, message)
