"""The part of Confluent's Schema Registry REST API that producers, Flink and people call, over a SchemaStore. Always FULL_TRANSITIVE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from starlette.exceptions import HTTPException

from headrace.schemas.errors import SchemaRefused, UnknownSchema
from headrace.schemas.registry import MIME
from headrace.schemas.registry_store import SchemaStore, Version, incompatibilities, parse

LEVEL = "FULL_TRANSITIVE"
BODY_BYTES_MAX = 1 << 20


class _Fault(Exception):
    """An answer that is an error, with Confluent's code."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Json(Response):
    media_type = MIME

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


def app(store_path: str | Path | None, store: SchemaStore | None = None) -> FastAPI:
    """The application. `store_path`: the file of JSON lines that keeps the schemas (None: memory); `store` instead of it, when given."""
    schemas = store or SchemaStore(store_path)
    api = FastAPI(title="headrace schema registry", default_response_class=_Json, docs_url=None, redoc_url=None, openapi_url=None)
    _errors(api)
    _schemas(api, schemas)
    _subjects(api, schemas)
    _compatibility(api, schemas)
    _config(api)
    _health(api, schemas)
    return api


def _errors(api: FastAPI) -> None:
    @api.exception_handler(_Fault)
    def fault(_: Request, error: _Fault) -> Response:
        return _Json({"error_code": error.code, "message": error.message}, error.status)

    @api.exception_handler(SchemaRefused)
    def refused(_: Request, error: SchemaRefused) -> Response:
        return _Json({"error_code": error.code, "message": str(error)}, 409 if error.code == 409 else 422)

    @api.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> Response:
        return _Json({"error_code": error.status_code, "message": f"HTTP {error.status_code} {error.detail}"}, error.status_code)


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request of any content type (clients send vnd.schemaregistry types, people often none)."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > BODY_BYTES_MAX:
            raise _Fault(413, 413, f"a body beyond {BODY_BYTES_MAX} bytes")
    try:
        body = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _Fault(400, 400, "the body is no JSON object")
    return body


Content = Annotated[dict[str, Any], Depends(_body)]


def _text(body: dict[str, Any]) -> str:
    if body.get("schemaType") not in (None, "AVRO") or body.get("references"):
        raise _Fault(422, 42201, "only AVRO schemas without references are kept here")
    if not isinstance(body.get("schema"), str):
        raise _Fault(422, 42201, "the body has no text under 'schema'")
    return body["schema"]


def _versions(store: SchemaStore, subject: str) -> list[Version]:
    try:
        return store.versions(subject)
    except UnknownSchema:
        raise _Fault(404, 40401, f"Subject '{subject}' not found.") from None


def _version(store: SchemaStore, subject: str, wanted: str) -> Version:
    versions = _versions(store, subject)
    if wanted in ("latest", "-1"):
        return versions[-1]
    if not wanted.isascii() or not wanted.isdigit() or not 1 <= int(wanted[:12]) < 1 << 31:
        raise _Fault(422, 42202, f"The specified version '{wanted}' is not a valid version id: 1 to 2^31 - 1, or latest.")
    if int(wanted) > len(versions):
        raise _Fault(404, 40402, f"Version {wanted} not found.")
    return versions[int(wanted) - 1]


def _shown(version: Version) -> dict[str, Any]:
    return {"subject": version.subject, "version": version.version, "id": version.id, "schema": version.text}


def _schemas(api: FastAPI, store: SchemaStore) -> None:
    def text(schema_id: int) -> str:
        try:
            return store.schema(schema_id)
        except UnknownSchema:
            raise _Fault(404, 40403, f"Schema {schema_id} not found") from None

    @api.get("/schemas/types")
    def types() -> Any:
        return _Json(["AVRO"])

    @api.get("/schemas/ids/{schema_id:int}")
    def by_id(schema_id: int, fetchMaxId: bool = False) -> Any:
        highest = {"maxId": max((v.id for s in store.subjects() for v in store.versions(s)), default=0)} if fetchMaxId else {}
        return _Json({"schema": text(schema_id), **highest})

    @api.get("/schemas/ids/{schema_id:int}/schema")
    def text_by_id(schema_id: int) -> Any:
        return Response(text(schema_id), media_type=MIME)

    @api.get("/schemas/ids/{schema_id:int}/subjects")
    def subjects_of(schema_id: int) -> Any:
        text(schema_id)
        return _Json([version.subject for version in store.uses(schema_id)])

    @api.get("/schemas/ids/{schema_id:int}/versions")
    def versions_of(schema_id: int) -> Any:
        text(schema_id)
        return _Json([{"subject": version.subject, "version": version.version} for version in store.uses(schema_id)])


def _subjects(api: FastAPI, store: SchemaStore) -> None:
    @api.get("/subjects")
    def subjects(subjectPrefix: str = "") -> Any:
        return _Json([subject for subject in store.subjects() if subject.startswith(subjectPrefix)])

    @api.get("/subjects/{subject}/versions")
    def versions(subject: str) -> Any:
        return _Json([version.version for version in _versions(store, subject)])

    @api.get("/subjects/{subject}/versions/{wanted}")
    def version(subject: str, wanted: str) -> Any:
        return _Json(_shown(_version(store, subject, wanted)))

    @api.get("/subjects/{subject}/versions/{wanted}/schema")
    def version_text(subject: str, wanted: str) -> Any:
        return Response(_version(store, subject, wanted).text, media_type=MIME)

    @api.post("/subjects/{subject}/versions")
    def register(subject: str, content: Content) -> Any:
        return _Json({"id": store.register(subject, _text(content))})

    @api.post("/subjects/{subject}")
    def lookup(subject: str, content: Content) -> Any:
        _versions(store, subject)
        found = store.find(subject, _text(content))
        if found is None:
            raise _Fault(404, 40403, "Schema not found")
        return _Json(_shown(found))


def _compatibility(api: FastAPI, store: SchemaStore) -> None:
    def judge(content: dict, against: list[Version], verbose: bool) -> Any:
        parsed = parse(_text(content))[1]
        faults = [f"version {old.version}: {fault}" for old in against for fault in incompatibilities(parsed, old.text)]
        return _Json({"is_compatible": not faults, **({"messages": faults} if verbose else {})})

    @api.post("/compatibility/subjects/{subject}/versions/{wanted}")
    def with_version(subject: str, wanted: str, content: Content, verbose: bool = False) -> Any:
        return judge(content, [_version(store, subject, wanted)], verbose)

    @api.post("/compatibility/subjects/{subject}/versions")
    def with_all(subject: str, content: Content, verbose: bool = False) -> Any:
        return judge(content, _versions(store, subject), verbose)


def _config(api: FastAPI) -> None:
    @api.get("/")
    def root() -> Any:
        return _Json({})

    @api.get("/mode")
    def mode() -> Any:
        return _Json({"mode": "READWRITE"})

    @api.get("/config")
    def level() -> Any:
        return _Json({"compatibilityLevel": LEVEL})

    @api.get("/config/{subject}")
    def level_of(subject: str, defaultToGlobal: bool = False) -> Any:
        if not defaultToGlobal:
            raise _Fault(404, 40408, f"Subject '{subject}' does not have subject-level compatibility configured")
        return _Json({"compatibilityLevel": LEVEL})

    @api.put("/config")
    @api.put("/config/{subject}")
    def set_level(content: Content) -> Any:
        wanted = content.get("compatibility")
        if wanted != LEVEL:
            raise _Fault(422, 42203, f"compatibility is {wanted!r}: this registry keeps every subject {LEVEL}")
        return _Json({"compatibility": LEVEL})


def _health(api: FastAPI, store: SchemaStore) -> None:
    registry = CollectorRegistry()
    requests = Counter("headrace_registry_requests_total", "Requests by method and status.", ["method", "status"], registry=registry)
    Gauge("headrace_registry_subjects", "Subjects.", registry=registry).set_function(lambda: len(store.subjects()))

    @api.middleware("http")
    async def count(request: Request, call_next) -> Response:
        answer = await call_next(request)
        requests.labels(request.method, str(answer.status_code)).inc()
        return answer

    @api.get("/healthz")
    def healthz() -> Any:
        return Response('{"status": "ok"}', media_type="application/json")

    @api.get("/ready")
    def ready() -> Any:
        return Response('{"ready": true, "missing": ""}', media_type="application/json")

    @api.get("/metrics")
    def metrics() -> Any:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
