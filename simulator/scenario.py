"""Scenarios: what a world is made of, as typed data in TOML. One file a scenario is bundled; a user's own file works alike.

A section that is absent takes its defaults; the sections of events (shock, cold_start, spam, poison, outage) happen only when they are
there. Days count from 0 at the world's start.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # CPython 3.10
    import tomli as tomllib

BUNDLED = Path(__file__).parent / "scenarios"


class ScenarioError(Exception):
    """The scenario cannot be used; the message says which key of which file, and what to write instead."""


def number(default: float, low: float, high: float) -> Any:
    """A field within low and high, whole when `default` is."""
    return field(default=default, metadata={"within": (low, high)})


@dataclass(frozen=True)
class Size:
    """How much there is. `items`: alive at some time of the world; `recall`: items that each request chooses from; `slots`: items shown."""

    users: int = number(1000, 1, 1_000_000)
    items: int = number(2000, 20, 1_000_000)
    authors: int = number(100, 1, 100_000)
    days: int = number(14, 1, 365)
    topics: int = number(12, 2, 12)
    recall: int = number(50, 2, 1000)
    slots: int = number(8, 1, 100)


@dataclass(frozen=True)
class Tastes:
    """Standard deviations in log-odds a unit of topic. `half_life_days`: of a user's own part, `trend_half_life_days`: of what all share;
    0: they stand still."""

    cohorts: int = number(6, 1, 100)
    cohort_scale: float = number(0.6, 0, 5)
    own_scale: float = number(0.7, 0, 5)
    half_life_days: float = number(30.0, 0, 10_000)
    trend_scale: float = number(0.4, 0, 5)
    trend_half_life_days: float = number(10.0, 0, 10_000)


@dataclass(frozen=True)
class Clicks:
    """The click model, log-odds (simulator/clicks.py). `position_power`: an item at place k from 0 is examined with (1 + k) ** -power."""

    base: float = number(-2.2, -15, 5)
    quality_scale: float = number(0.6, 0, 5)
    author_bonus: float = number(0.8, -5, 5)
    fresh_bonus: float = number(0.5, -5, 5)
    fresh_h: float = number(12.0, 0.1, 10_000)
    daypart_scale: float = number(0.3, 0, 5)
    foreign_language: float = number(-1.2, -5, 5)
    position_power: float = number(0.5, 0, 3)


@dataclass(frozen=True)
class Items:
    """Lives are log-normal around `life_h` hours. `mistagged`: share of items whose tag names another topic than their own."""

    life_h: float = number(36.0, 1, 10_000)
    life_sigma: float = number(0.6, 0, 3)
    mistagged: float = number(0.05, 0, 1)
    second_topic: float = number(0.2, 0, 0.5)
    chinese: float = number(0.6, 0, 1)


@dataclass(frozen=True)
class Sessions:
    """Sessions a user and day: log-normal over users around the mean `a_day`; requests a session: geometric around `requests`."""

    a_day: float = number(1.2, 0.01, 50)
    activity_sigma: float = number(0.8, 0, 3)
    requests: float = number(2.0, 1, 50)
    gap_s: float = number(60.0, 1, 3600)


@dataclass(frozen=True)
class Actions:
    """What follows an exposure. `delay_s`: median of the log-normal time from an exposure to its click; rates are of clicks, `hide` of what
    was examined and not clicked. `window_s`: what comes later than this is lost to attribution in a log."""

    delay_s: float = number(8.0, 0.1, 1_000_000)
    delay_sigma: float = number(0.8, 0, 3)
    window_s: float = number(600.0, 1, 1_000_000)
    like: float = number(0.15, 0, 1)
    comment: float = number(0.04, 0, 1)
    repost: float = number(0.03, 0, 1)
    follow: float = number(0.03, 0, 1)
    hide: float = number(0.01, 0, 1)
    dwell_s: float = number(25.0, 0.1, 10_000)


@dataclass(frozen=True)
class Shock:
    """At `day`, `users` of all users have tastes drawn anew, and what all share is drawn anew `trend` times as wide."""

    day: float = number(7.5, 0, 365)
    users: float = number(0.3, 0, 1)
    trend: float = number(2.0, 0, 10)


@dataclass(frozen=True)
class ColdStart:
    """From `day` on a wave comes within `hours`: `users` of all users ask for the first time then, `items` of all items are born then."""

    day: float = number(7.0, 0, 365)
    hours: float = number(12.0, 0.1, 1000)
    users: float = number(0.3, 0, 0.95)
    items: float = number(0.2, 0, 0.95)


@dataclass(frozen=True)
class Spam:
    """`bots` accounts click each of `items` items of one author of poor quality, `requests` times a bot and day, from `day` for `days`."""

    day: float = number(5.0, 0, 365)
    days: float = number(2.0, 0.01, 365)
    bots: int = number(50, 1, 1_000_000)
    items: int = number(10, 1, 10_000)
    requests: float = number(20.0, 0.1, 10_000)


@dataclass(frozen=True)
class Poison:
    """From `day` for `days`, `labels` of all exposures report the opposite of what happened."""

    day: float = number(5.0, 0, 365)
    days: float = number(2.0, 0.01, 365)
    labels: float = number(0.3, 0, 1)


@dataclass(frozen=True)
class Outage:
    """From `day` for `hours`, users are shown what a policy chooses, and nothing of it reaches the log."""

    day: float = number(7.4, 0, 365)
    hours: float = number(6.0, 0.01, 1000)


@dataclass(frozen=True)
class Scenario:
    name: str = "calm"
    what: str = ""
    size: Size = Size()
    tastes: Tastes = Tastes()
    clicks: Clicks = Clicks()
    items: Items = Items()
    sessions: Sessions = Sessions()
    actions: Actions = Actions()
    shock: Shock | None = None
    cold_start: ColdStart | None = None
    spam: Spam | None = None
    poison: Poison | None = None
    outage: Outage | None = None

    def sized(self, users: int | None = None, items: int | None = None, days: int | None = None) -> Scenario:
        """With other sizes where they are given. Raises ScenarioError, also when an event of the scenario would lie behind the last day."""
        given = {name: value for name, value in (("users", users), ("items", items), ("days", days)) if value is not None}
        for name, value in given.items():
            _check(Size, name, value, "size")
        made = replace(self, size=replace(self.size, **given))
        _events_fit(made, self.name)
        return made

    def document(self) -> dict[str, Any]:
        """As it would stand in TOML, for reports."""
        return {name: value for name, value in asdict(self).items() if value is not None}


SECTIONS: dict[str, type] = {"size": Size, "tastes": Tastes, "clicks": Clicks, "items": Items, "sessions": Sessions, "actions": Actions,
                             "shock": Shock, "cold_start": ColdStart, "spam": Spam, "poison": Poison, "outage": Outage}
EVENTS = ("shock", "cold_start", "spam", "poison", "outage")


def names() -> list[str]:
    """The bundled scenarios."""
    return sorted(file.stem for file in BUNDLED.glob("*.toml"))


def load(name: str | Path) -> Scenario:
    """A bundled scenario by name, or the one in a TOML file. Raises ScenarioError."""
    bundled = BUNDLED / f"{name}.toml"
    file = bundled if str(name) in names() else Path(name)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        near = difflib.get_close_matches(str(name), names(), 1, 0)[0]
        raise ScenarioError(f"no scenario and no file {str(name)!r}; the nearest is {near!r}; known: {', '.join(names())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{file}: {error}") from None
    return parse(values, file.stem, str(file))


def parse(values: dict[str, Any], name: str, where: str = "scenario") -> Scenario:
    """The scenario in a parsed TOML document; `where` names it in errors. Raises ScenarioError."""
    made: dict[str, Any] = {"name": name}
    for key, body in values.items():
        _known(key, ["what", *SECTIONS], where)
        if key == "what":
            if not isinstance(body, str):
                raise ScenarioError(f"{where}: what is a text")
            made[key] = body
            continue
        if not isinstance(body, dict):
            raise ScenarioError(f"{where}: {key} is a section, write [{key}]")
        kind = SECTIONS[key]
        for part, value in body.items():
            _known(part, [one.name for one in fields(kind)], f"{where}: [{key}]")
            _check(kind, part, value, f"{where}: [{key}]")
        made[key] = kind(**body)
    scenario = Scenario(**made)
    _events_fit(scenario, where)
    return scenario


def _events_fit(scenario: Scenario, where: str) -> None:
    for name in EVENTS:
        event = getattr(scenario, name)
        if event is not None and event.day >= scenario.size.days:
            raise ScenarioError(f"{where}: [{name}] is at day {event.day:g} and the world has {scenario.size.days} days, 0 to"
                                f" {scenario.size.days - 1}: give it more days, or move the event")


def _check(kind: type, key: str, value: Any, where: str) -> None:
    one = next(one for one in fields(kind) if one.name == key)
    whole = isinstance(one.default, int)
    low, high = one.metadata["within"]
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
        raise ScenarioError(f"{where}: {key} is {value!r}; write a {'whole ' if whole else ''}number within {low} and {high}")


def _known(name: str, known: list[str], where: str) -> None:
    if name not in known:
        raise ScenarioError(f"{where}: unknown key {name!r}; the nearest is {difflib.get_close_matches(name, known, 1, 0)[0]!r}")
