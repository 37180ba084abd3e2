"""One entry of the catalog whole, and the lineage of one."""

from __future__ import annotations

import difflib
from typing import Any

from headrace.catalog.entries import Entry, catalog, schema_of, table
from headrace.catalog.flows import Step, lineage, places
from headrace.config import Config
from headrace.lake import reader, summary


class NoSuchData(Exception):
    """No topic, table or lake of this name: `headrace data list` names them all."""


def described(config: Config, name: str) -> Entry:
    """Raises NoSuchData, KafkaUnavailable, RegistryUnavailable."""
    found = catalog(config)
    one = next((one for one in found.entries if one["name"] == name), None)
    if one is None:
        away = f" (did not answer: {', '.join(found.silent)})" if found.silent else ""
        raise NoSuchData(_unknown(name, [each["name"] for each in found.entries]) + away)
    more: dict[str, Any] = {}
    if one["kind"] == "topic":
        more = {"schema": schema_of(config, name)}
    elif one["kind"] == "lake":
        more = {"partitions_of_time": summary.partitions(reader.opened(config.lake_place))}
    return one | more


def lineage_of(config: Config, name: str) -> tuple[str, list[Step]]:
    """The place that a name lies in (`ps/fm` of `ps/fm/weights`), and its lineage. Raises NoSuchData."""
    declared = table(config)
    known = places(declared)
    place = next((one for one in known if name == one or name.startswith(f"{one}/")), None)
    if place is None:
        raise NoSuchData(_unknown(name, known))
    return place, lineage(declared, place)


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    meant = f"; the nearest is {near[0]!r}" if near else ""
    return f"nothing here is called {name!r}{meant}; `headrace data list` names what there is: {', '.join(known) or 'nothing answers'}"
