"""Files of feature definitions: TOML tables and Python functions become one list, each error with its file and line."""

from __future__ import annotations

import ast
import contextlib
import re
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from headrace.features.definitions import Definition, DefinitionError, define, feature

if sys.version_info >= (3, 11):
    import tomllib
else:  # CPython 3.10
    import tomli as tomllib

_HEADER = re.compile(r"^\s*\[\s*(?P<name>[^\[\]]+?)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"^\s*(?P<name>[A-Za-z0-9_\"'.-]+)\s*=")


Texts = tuple[tuple[str, str], ...]
"""(path, text) of files of definitions: what travels to a worker that has no such files."""


def read(paths: Sequence[str | Path]) -> list[Definition]:
    """The definitions of all files, in their order. Raises DefinitionError: a file that cannot be read, a definition that is wrong, two of
    one name and version."""
    return of_texts(texts(paths))


def texts(paths: Sequence[str | Path]) -> Texts:
    """Raises DefinitionError for a file that is not there."""
    found = []
    for path in map(Path, paths):
        try:
            found.append((str(path), path.read_text()))
        except (OSError, UnicodeDecodeError) as error:
            raise DefinitionError(f"{path} cannot be read: {error}") from None
    return tuple(found)


def of_texts(files: Iterable[tuple[str, str]]) -> list[Definition]:
    """As `read`."""
    found: dict[str, Definition] = {}
    for path, text in files:
        if not path.endswith((".toml", ".py")):
            raise DefinitionError(f"{path}: definitions are in files named .toml or .py")
        for definition in _of_toml(path, text) if path.endswith(".toml") else _of_python(path, text):
            twice = found.get(definition.identity)
            if twice is not None:
                raise DefinitionError(f"{definition.place}: feature {definition.identity} is defined a second time (first at"
                                      f" {twice.place}): give one another name, or another version if it replaces the other")
            found[definition.identity] = definition
    return list(found.values())


def _of_toml(path: str, text: str) -> Iterator[Definition]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError(_toml_trouble(path, text, str(error))) from None
    lines = _lines(text)
    for key, tables in document.items():
        if key != "feature" or not isinstance(tables, dict):
            raise DefinitionError(f"{path}:{lines.get((key, ''), lines.get(('', key), 1))}: {key!r} is nothing here: a feature is a table"
                                  " [feature.NAME]")
    for name, given in document.get("feature", {}).items():
        section = f"feature.{name}"

        def where_is(key: str, section: str = section) -> str:
            return f"{path}:{lines.get((section, key), lines.get((section, ''), 1))}"

        if not isinstance(given, dict):
            raise DefinitionError(f"{path}:{lines.get(('feature', name), 1)}: {name} is {given!r}, not a table [feature.{name}]")
        yield define(name, given, where_is)


def _toml_trouble(path: str, text: str, trouble: str) -> str:
    """With the line; of a table that stands twice also what to do."""
    at = re.search(r"line (\d+)", trouble)
    line = int(at[1]) if at else 1
    header = _HEADER.match(text.splitlines()[line - 1]) if at and line <= len(text.splitlines()) else None
    if header and "declare" in trouble:
        return f"{path}:{line}: [{header['name']}] stands here a second time: two features of one name; give one another name"
    return f"{path}:{line}: no TOML: {trouble}"


def _lines(text: str) -> dict[tuple[str, str], int]:
    """(section, key) -> line; a section's own line under the key ""."""
    found: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            section = ".".join(part.strip().strip("\"'") for part in header["name"].split("."))
            found.setdefault((section, ""), number)
            found.setdefault((section.split(".")[0], ""), number)
            # [feature.NAME.where] is the key `where` of its feature
            above, _, last = section.rpartition(".")
            found.setdefault((above, last), number)
        elif key:
            name = key["name"].strip("\"'").split(".")[0]
            found.setdefault((section, name), number)
    return found


def _of_python(path: str, text: str) -> Iterator[Definition]:
    collected = _collected(path, text)
    if not collected:
        raise DefinitionError(f"{path}: no function stands under @feature (from headrace.features.definitions import feature)")
    bodies = {node.name: ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    for name, given, function, place in collected:
        yield define(name, given, lambda key, place=place: place, function, bodies.get(name, ""))  # type: ignore[misc]


def _collected(path: str, text: str) -> list[tuple[str, dict[str, Any], Callable[..., Any], str]]:
    module = types.ModuleType(f"headrace_features_{uuid.uuid4().hex}")
    module.__file__ = path
    found: list[Any] = []
    sys.modules[module.__name__] = module  # dataclasses look there
    feature.collected = found  # type: ignore[attr-defined]
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except Exception as error:
        raise DefinitionError(f"{path}:{_line_of(error, path)}: {type(error).__name__}: {error}") from None
    finally:
        with contextlib.suppress(AttributeError):
            del feature.collected  # type: ignore[attr-defined]
        sys.modules.pop(module.__name__, None)
    return found


def _line_of(error: BaseException, path: str) -> int:
    """The last line of `path` that the error went through."""
    line = getattr(error, "lineno", None) or 1
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return int(line)
