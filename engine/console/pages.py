"""The pages, from which the navigation is made, and the parts that each is put together from.

To add a page: a template in templates/ that extends shell.html, a Page here, and a Part for each piece of it that shows data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.engine.console import explained, labelling, panels, trying
from headrace.engine.console.desk import Desk

Data = Callable[[Desk, Mapping[str, str]], dict[str, Any]]
CONTROL = ("control",)
USER = ("control", "recommend")
WRITE = ("control", "events")
CLICK = ("control", "recommend", "events")


@dataclass(frozen=True)
class Part:
    """A fragment at `path`: `template` over what `data(desk, fields)` gives, fields being those of the query, or of the body where `posts`.
    Keys need all of `scopes`."""

    path: str
    template: str
    data: Data
    scopes: tuple[str, ...] = CONTROL
    posts: bool = False


@dataclass(frozen=True)
class Page:
    """A page at `path`, which holds no data: its parts are asked for by the browser, with its key."""

    path: str
    title: str
    template: str
    parts: tuple[Part, ...]


PAGES = (
    Page("/", "Live", "live.html", (
        Part("/console/summary", "summary.html", panels.summary),
        Part("/console/learning", "learning.html", panels.learning),
        Part("/console/freshness", "freshness.html", panels.freshness),
        Part("/console/flow", "flow.html", panels.flow),
        Part("/console/processes", "processes.html", panels.processes),
        Part("/console/users", "users.html", panels.users),
        Part("/console/user", "user.html", explained.user, USER),
        Part("/console/list", "list.html", trying.listed, USER),
        Part("/console/click", "trial.html", trying.click, CLICK, posts=True),
        Part("/console/trial", "trial.html", trying.look, USER),
    )),
    Page("/label", "Label", "label.html", (
        Part("/console/doubt", "doubt.html", labelling.doubt),
        Part("/console/label", "doubt.html", labelling.label, WRITE, posts=True),
    )),
)
