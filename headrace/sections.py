"""Sections of the configuration as text, and the names in them checked."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, get_args

from headrace.connections import ConfigError, Section


def shown(name: str, section: Section) -> list[str]:
    """A section and, behind its keys, those within it."""
    lines = [f"# {(type(section).__doc__ or '').strip()}", f"[{name}]", *keys(section)]
    for key, kind in within(type(section)).items():
        held = getattr(section, key)
        if isinstance(held, dict):
            lines += [f"# [{name}.{key}.NAME], with the keys {', '.join(kind.model_fields)}: {type(section).model_fields[key].description}"]
        for inner, body in {f"{key}.{one}": body for one, body in held.items()}.items() if isinstance(held, dict) else [(key, held)]:
            lines += shown(f"{name}.{inner}", body)
    return lines


def within(kind: type[Section]) -> dict[str, type[Section]]:
    """Keys of a section that are sections themselves, or have one for each name."""
    found = {key: (field.annotation, *get_args(field.annotation)) for key, field in kind.model_fields.items()}
    return {key: one for key, kinds in found.items() for one in kinds if isinstance(one, type) and issubclass(one, Section)}


def keys(section: Section) -> list[str]:
    """Its keys with a comment above each, without sections within it."""
    lines: list[str] = []
    inner = within(type(section))
    for key, value in section:
        if key in inner:
            continue
        note = type(section).model_fields[key].description
        lines += [f"# {note}"] if note else []
        lines.append(f"# {key} = (not set)" if value is None else f"{key} = {_literal(value)}")
    return lines


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_literal(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def keys_known(name: str, kind: type[Section], body: dict[str, Any], where: str) -> None:
    """Raises ConfigError for a key of section `name` that there is not, and for a section within it that is none."""
    for key, value in body.items():
        known(f"{name}.{key}", [f"{name}.{k}" for k in kind.model_fields], where, "key")
        inner = within(kind).get(key)
        if inner is None:
            continue
        path, many = f"{name}.{key}", isinstance(kind.model_fields[key].default, dict)
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {path} is a section, write [{path}{'.NAME' if many else ''}]")
        for where_in, one in {f"{path}.{each}": one for each, one in value.items()}.items() if many else [(path, value)]:
            if not isinstance(one, dict):
                raise ConfigError(f"{where}: {where_in} is a section, write [{where_in}]")
            keys_known(where_in, inner, one, where)


def known(name: str, names: list[str], where: str, kind: str) -> None:
    """Raises ConfigError, which names the nearest of `names`, for a `name` that is none of them."""
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0)
        raise ConfigError(f"{where}: unknown {kind} {name!r}; the nearest is {near[0]!r}" if near else f"{where}: unknown {kind} {name!r}")
