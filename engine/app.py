"""The HTTP front: routes, what they accept, and errors as sentences."""

import logging
import math
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Body, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from headrace.engine.access import Access, InFlight, Near
from headrace.engine.clock import ClockFixed
from headrace.engine.console.desk import Desk
from headrace.engine.console.routes import mount, scopes
from headrace.engine.events import Events
from headrace.engine.keys import Keys
from headrace.engine.limits import BodyLimit, Measured
from headrace.engine.recommend import RECALL_MAX, Engine
from headrace.rpc.errors import Refused, RpcError, Unavailable
from headrace.schemas.interaction import CONTEXT_MAX, TS_MS_MAX, TS_MS_MIN

log = logging.getLogger(__name__)

Id = Annotated[str, Field(min_length=1, max_length=256)]
UserQuery = Annotated[str, Query(min_length=1, max_length=256, description="Id.")]
KQuery = Annotated[int, Query(ge=1, le=RECALL_MAX, description="How many.")]
Scene = Annotated[str, Query(max_length=64, description="Place in the product.")]
ContextQuery = Annotated[Sequence[str], Query(max_length=CONTEXT_MAX, description="Context features, each field=value.")]
TsMs = Annotated[int, Field(ge=TS_MS_MIN, le=TS_MS_MAX)]
TsMsQuery = Annotated[int | None, Query(ge=TS_MS_MIN, le=TS_MS_MAX, description="Event time, which makes the answer repeatable.")]
EVENTS_MAX = 1000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecallQuery(_Strict):
    """Items near to users, or to vectors: one of the two."""

    users: list[Id] | None = Field(None, min_length=1, max_length=100)
    vectors: list[list[float]] | None = Field(None, min_length=1, max_length=1024)
    k: int = Field(10, ge=1, le=RECALL_MAX)


class ScoreQuery(_Strict):
    """Items to be scored for a user; `ts_ms` makes the answer repeatable."""

    user: Id
    items: list[Id] = Field(min_length=1, max_length=RECALL_MAX)
    ts_ms: TsMs | None = None
    context: dict[str, str] = Field(default_factory=dict, max_length=CONTEXT_MAX)


class ClockSetting(_Strict):
    """The clock's mode; `ts_ms`, needed under log, is the event time reached. `hold_ms`: the engine sends no heartbeats for so long, as a
    replay sends them in order with its events; 0 gives them back. `leave_log`, with the mode now, takes a stack from a log's time to today,
    for good."""

    mode: Literal["now", "log"]
    ts_ms: TsMs | None = None
    hold_ms: int | None = Field(None, ge=0, le=60_000)
    leave_log: bool = False


class BadInput(Exception):
    """A field that no declared type could refuse; answered 422 with its name."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


def app(engine: Engine, events: Events, registry: CollectorRegistry, body_bytes_max: int = 1 << 20, requests_max: int = 256,
        keys: Keys | None = None, desk: Desk | None = None) -> FastAPI:
    """The application over `engine` and `events`; figures of requests go to `registry`, for /metrics. With `keys` callers need one; with
    `desk` there are pages at the root."""
    api = FastAPI(title="headrace engine", description="Events in, recommendations out.", docs_url=None, redoc_url=None)
    _recommendations(api, engine)
    _ingest(api, engine, events)
    _operations(api, engine, registry)
    if desk is not None:
        mount(api, desk)
    _errors(api)
    api.add_middleware(InFlight, requests_max=requests_max)  # within the next: a body that is still on its way takes no place
    api.add_middleware(BodyLimit, bytes_max=body_bytes_max)
    if keys is not None:
        api.add_middleware(Access, keys=keys, pages=scopes() if desk is not None else {})  # before a body is read
    else:
        api.add_middleware(Near)
    api.add_middleware(Measured, registry=registry)
    return api


def _recommendations(api: FastAPI, engine: Engine) -> None:
    @api.get("/recommend")
    def recommend(user: UserQuery, n: Annotated[int, Query(ge=1, le=engine.candidates, description="How many.")] = 10,
                  scene: Scene = "feed", context: ContextQuery = (), explain: bool = False, preview: bool = False) -> dict[str, Any]:
        """The n best unread items; impressions are written unless `preview`."""
        fields = _fields([tuple(field.partition("=")[::2]) for field in context])
        return engine.recommend(_text("user", user), n, _text("scene", scene), fields, explain, preview)

    @api.get("/recall")
    def recall(user: UserQuery, k: KQuery = 10) -> dict[str, Any]:
        """The k items nearest to the user's vector."""
        return engine.recall(_text("user", user), k)

    @api.get("/similar")
    def similar(item: UserQuery, k: KQuery = 10) -> dict[str, Any]:
        """The k items nearest to an item's vector."""
        return engine.similar(_text("item", item), k)

    @api.get("/features")
    def features(user: UserQuery, item: UserQuery, context: ContextQuery = (), ts_ms: TsMsQuery = None) -> dict[str, Any]:
        """What the ranker sees of a user and an item; nothing is written."""
        fields = _fields([tuple(field.partition("=")[::2]) for field in context])
        return engine.features(_text("user", user), _text("item", item), fields, ts_ms)

    @api.post("/recall")
    def recall_many(query: RecallQuery) -> dict[str, Any]:
        """The k items nearest to each of several users or vectors."""
        if (query.users is None) == (query.vectors is None):
            raise BadInput("users", "give users or vectors, one of the two")
        if query.users is not None:
            return engine.recall_users([_text("users", user) for user in query.users], query.k)
        return engine.recall_vectors(_matrix(query.vectors or []), query.k)

    @api.post("/score")
    def score(query: ScoreQuery) -> dict[str, Any]:
        """Probabilities of given items; nothing is written."""
        items = [_text("items", item) for item in query.items]
        return engine.score(_text("user", query.user), items, _fields(list(query.context.items())), query.ts_ms)


def _ingest(api: FastAPI, engine: Engine, events: Events) -> None:
    @api.post("/events")
    def take(body: Annotated[Any, Body(description="An event or a list, fields as in schemas/interactions.avsc.")]) -> JSONResponse:
        """Send events to the log; a verdict for each, 207 when some were refused, 422 when all were.

        `note` says it when an action is one that nothing counts, misspelt perhaps; and on a stack whose clock is a log's, when an event is
        dated far ahead of the stack's event time and waits for that.
        """
        if isinstance(body, bytes):  # a form's type, which curl sends by itself: any page of the web may send that, JSON it may not
            raise HTTPException(415, "the body has no type application/json: add the header Content-Type: application/json")
        given = body if isinstance(body, list) else [body]
        if len(given) > EVENTS_MAX:
            raise BadInput("body", f"{len(given)} events; a call takes at most {EVENTS_MAX}")
        verdicts = events.take(given)
        accepted = sum(verdict["accepted"] for verdict in verdicts)
        answer = {"accepted": accepted, "refused": len(verdicts) - accepted, "verdicts": verdicts}
        if note := events.note([event for event, verdict in zip(given, verdicts, strict=True) if verdict["accepted"]]):
            answer["note"] = note
        if accepted == len(verdicts):
            return JSONResponse(answer, 200)
        if accepted or any(verdict.get("reason") == "undelivered" for verdict in verdicts):
            return JSONResponse(answer, 207)
        refused = {"error": "no event was accepted", "next": "verdicts says of each what to mend", "field": "body", **answer}
        return JSONResponse(refused, 422)

    @api.get("/clock")
    def clock() -> dict[str, Any]:
        """Mode and event time; null while nothing has used the clock."""
        return engine.clock.state()

    @api.post("/clock")
    def set_clock(setting: ClockSetting) -> dict[str, Any]:
        """Fix the mode, or move the log's time forward; 409 when the stack runs on the other clock."""
        if setting.mode == "log" and setting.ts_ms is None:
            raise BadInput("ts_ms", "the log's clock needs the event time reached")
        if setting.leave_log and setting.mode != "now":
            raise BadInput("leave_log", "goes with the mode now")
        state = engine.clock.leave_log() if setting.leave_log else engine.clock.set(
            setting.mode, setting.ts_ms if setting.ts_ms is not None else engine.clock.peek())
        if setting.hold_ms is not None:
            engine.clock.hold(setting.hold_ms)
        return state


def _operations(api: FastAPI, engine: Engine, registry: CollectorRegistry) -> None:
    @api.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @api.get("/ready")
    def ready() -> JSONResponse:
        """Whether everything below answers."""
        missing = engine.missing()
        return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)

    @api.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _errors(api: FastAPI) -> None:
    def answer(status: int, error: str, following: str, **more: Any) -> JSONResponse:
        return JSONResponse({"error": error, "next": following, **more}, status)

    @api.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part not in ("query", "body")]
        field = place[0] if place and not place[0].isdigit() and first["type"] != "json_invalid" else "body"
        return answer(422, f"{'.'.join(place) or 'body'}: {first['msg']}", f"mend {field}; /openapi.json says what it may be", field=field)

    @api.exception_handler(BadInput)
    def bad(_: Request, error: BadInput) -> JSONResponse:
        return answer(422, f"{error.field}: {error}", f"mend {error.field}", field=error.field)

    @api.exception_handler(ClockFixed)
    def fixed(_: Request, error: ClockFixed) -> JSONResponse:
        return answer(409, str(error), "GET /clock says which clock this stack runs on", field="mode")

    @api.exception_handler(RpcError)
    def upstream(_: Request, error: RpcError) -> JSONResponse:
        if isinstance(error, Unavailable):
            return answer(503, str(error), "`headrace status` shows what runs; the request may be repeated")
        if isinstance(error, Refused):
            return answer(422, str(error), "mend the request", field=str(error).split(":", 1)[0])
        return answer(502, f"{error.code}: {error}", "the log of the service named has the cause")

    @api.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> JSONResponse:
        unread = error.status_code == 400  # FastAPI's own, of a body that Python's parser gives up on: not UTF-8, or nested too deeply
        return answer(error.status_code, str(error.detail), "send the body as JSON in UTF-8, nested less than 1,000 deep" if unread
                      else "/openapi.json lists the routes", **({"field": "body"} if unread else {}))

    @api.exception_handler(Exception)
    def defect(_: Request, error: Exception) -> JSONResponse:
        number = uuid.uuid4().hex[:8]
        log.error("request failed, number %s", number, exc_info=error)
        return answer(500, f"a defect of the engine; its log has the cause under {number}", "report it with that part of the log")


def _text(field: str, value: str) -> str:
    try:
        if len(value.encode()) <= 256:
            return value
    except UnicodeEncodeError:  # a lone surrogate
        pass
    raise BadInput(field, "text in UTF-8 of at most 256 bytes")


def _fields(pairs: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """Context features of a request; columns of the user and the item come from their own events."""
    for name, value in pairs:
        if not name or not value or name.startswith(("user.", "item.")):
            raise BadInput("context", f"{name[:60]!r} is no field=value of the request's context")
        _text("context", name), _text("context", value)
    return {name: value for name, value in pairs}


def _matrix(vectors: list[list[float]]) -> np.ndarray:
    width = len(vectors[0])
    if not width or any(len(vector) != width for vector in vectors):
        raise BadInput("vectors", "all vectors have one dimension")
    if not all(math.isfinite(number) and abs(number) < 1e30 for vector in vectors for number in vector):
        raise BadInput("vectors", "a number is NaN or too large")
    return np.array(vectors, np.float32)
