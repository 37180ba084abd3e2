"""Ingests by name: which topic, and under which mapping. Kept in DATA_DIR/ingests, so that a job is submitted again by its name alone."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headrace.config import Config
from headrace.schemas import mapping as mappings
from headrace.schemas.mapping import Mapping, MappingError
from headrace.schemas.source import Source, start_of

PREFIX = "ingest-"
_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?")


class IngestError(Exception):
    """An ingest cannot begin or go on as it was asked for; the message says why and what to do."""


@dataclass(frozen=True)
class Definition:
    """`values`: MAPPING.toml as parsed, with its [source]."""

    name: str
    topic: str
    values: dict[str, Any]

    @property
    def job(self) -> str:
        """The name of its Flink job."""
        return f"{PREFIX}{self.name}"

    @property
    def mapping(self) -> Mapping:
        """Raises MappingError."""
        return mappings.parse(self.values, f"the mapping of ingest {self.name}")

    @property
    def source(self) -> Source:
        """Raises MappingError, IngestError."""
        found = self.mapping.source
        if found is None:
            raise IngestError('the mapping has no [source]; write [source] and format = "json", "avro", "debezium-json" or "debezium-avro"')
        return found


def define(topic: str, file: Path, name: str | None = None, start: str | None = None) -> Definition:
    """The ingest of `topic` by MAPPING.toml `file`; named after the topic by default; `start` instead of the file's. Raises MappingError,
    IngestError, SourceError."""
    try:
        values = mappings.tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except mappings.tomllib.TOMLDecodeError as error:
        raise MappingError(f"{file}: {error}") from None
    mappings.parse(values, str(file))
    name = name or re.sub(r"[^a-z0-9_-]+", "-", topic.lower()).strip("-_")[:40].strip("-_")
    if not _NAME.fullmatch(name):
        raise IngestError(f"{name!r} names no ingest: write letters, digits, - and _, at most 40, with --name")
    made = Definition(name, topic, values)
    begin = start_of(start) if start is not None else made.source.start
    # A time in words, which JSON keeps.
    values["source"]["start"] = begin if isinstance(begin, str) else _words(begin)
    return made


def _words(ts_ms: int) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(ts_ms / 1000, timezone.utc).isoformat()


def save(config: Config, definition: Definition) -> None:
    """Raises IngestError when another topic is ingested under the name: what was read of it is kept by name."""
    file = _folder(config) / f"{definition.name}.json"
    if file.exists():
        held = load(config, definition.name)
        if held.topic != definition.topic:
            raise IngestError(f"{definition.name} is an ingest of topic {held.topic}; choose another --name for {definition.topic}")
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(definition), indent=2) + "\n")
    fresh.rename(file)


def load(config: Config, name: str) -> Definition:
    """Raises IngestError."""
    try:
        return Definition(**json.loads((_folder(config) / f"{name}.json").read_text()))
    except FileNotFoundError:
        raise IngestError(f"no ingest is called {name!r} here; there are: {', '.join(names(config)) or 'none'}") from None


def names(config: Config) -> list[str]:
    """Of those ever begun on this data folder."""
    return sorted(file.stem for file in _folder(config).glob("*.json"))


def job_names(config: Config) -> list[str]:
    return [f"{PREFIX}{name}" for name in names(config)]


def _folder(config: Config) -> Path:
    return config.stack.data_dir / "ingests"
