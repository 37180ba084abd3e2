"""The routes of the pages: shells and files without data, open to all; parts and series, with scopes where keys are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from headrace.engine.console import panels
from headrace.engine.console.assets import Asset, assets
from headrace.engine.console.desk import Desk
from headrace.engine.console.drawing import environment
from headrace.engine.console.guard import ASSET, DATA, foreign
from headrace.engine.console.pages import CONTROL, PAGES, Page, Part

SERIES = "/console/series"
FIELDS_MAX = 8


def scopes() -> dict[str, tuple[str, ...]]:
    """path -> the scopes that a key needs for it, none for what holds no data."""
    parts = {part.path: part.scopes for page in PAGES for part in page.parts}
    return {**{page.path: () for page in PAGES}, **{asset.path: () for asset in assets().values()}, SERIES: CONTROL, **parts}


def mount(api: FastAPI, desk: Desk) -> None:
    """Add the pages to `api`."""
    templates, files = environment(), assets()
    hrefs = {name: asset.href for name, asset in files.items()}

    def shell(page: Page) -> Callable[[], HTMLResponse]:
        body = templates.get_template(page.template).render(page=page, pages=PAGES, files=hrefs)
        return lambda: HTMLResponse(body, headers=DATA)

    def part_of(part: Part) -> Callable[..., Response]:
        template = templates.get_template(part.template)

        def answer(request: Request, fields: dict[str, str] = Depends(_fields)) -> Response:
            refused = turned_away(request, part.posts)
            if refused is not None:
                return refused
            desk.sampler.watch()
            return HTMLResponse(template.render(part.data(desk, fields)), headers=DATA)

        return answer

    def series(request: Request) -> Response:
        refused = turned_away(request)
        if refused is not None:
            return refused
        desk.sampler.watch()
        return JSONResponse(panels.series(desk), headers=DATA)

    def turned_away(request: Request, posts: bool = False) -> Response | None:
        if posts and (why := foreign(request.headers)):
            return JSONResponse({"error": why, "next": "use the page itself"}, 403, DATA)
        return None

    def file_of(asset: Asset) -> Callable[[], Response]:
        return lambda: Response(asset.body, media_type=asset.kind, headers=ASSET)

    for page in PAGES:
        _add(api, page.path, shell(page))
        for part in page.parts:
            _add(api, part.path, part_of(part), "POST" if part.posts else "GET")
    _add(api, SERIES, series)
    for asset in files.values():
        _add(api, asset.path, file_of(asset))


def _add(api: FastAPI, path: str, answer: Callable[..., Any], method: str = "GET") -> None:
    api.add_api_route(path, answer, methods=[method], include_in_schema=False, response_model=None)


async def _fields(request: Request) -> dict[str, str]:
    """The fields of the query, or of a form's body."""
    if request.method == "GET":
        return dict(request.query_params)
    try:
        return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), max_num_fields=FIELDS_MAX))
    except ValueError:
        raise HTTPException(422, f"a form of this page has at most {FIELDS_MAX} fields") from None
