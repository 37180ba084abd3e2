"""Subjects, versions and ids of a schema registry: in memory, and in an append-only file of JSON lines when a path is given."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from headrace.schemas.errors import SchemaRefused, UnknownSchema

TEXT_BYTES_MAX = 256 << 10


class Version(NamedTuple):
    subject: str
    version: int
    id: int
    text: str


class SchemaStore:
    """All schemas of a registry. One schema has one id in every subject; ids and versions start at 1 and never change or go.

    Two texts are one schema when they are equal JSON (whitespace and the order of attributes do not count, docs and defaults do).
    Safe between threads. Also serves as the registry of a codec within one process.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = Path(path) if path is not None else None
        self._lock = threading.Lock()
        self._subjects: dict[str, list[Version]] = {}
        self._texts: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        if self._path is not None:
            self._load(self._path)

    def register(self, subject: str, text: str) -> int:
        """The id of `text` under `subject`, a new version when it is new there. Raises SchemaRefused: invalid, or not FULL_TRANSITIVE."""
        identity, parsed = parse(text)
        with self._lock:
            found = self._find(subject, identity)
            if found is not None:
                return found.id
            against = self._subjects.get(subject, [])
            faults = [f"version {old.version}: {fault}" for old in against for fault in incompatibilities(parsed, old.text)]
            if faults:
                raise SchemaRefused(409, f"Schema being registered is incompatible with an earlier schema for subject {subject!r}"
                                         f" (FULL_TRANSITIVE): {'; '.join(faults)}")
            schema_id = self._ids.get(identity, len(self._texts) + 1)
            version = Version(subject, len(against) + 1, schema_id, self._texts.get(schema_id, text))
            self._append(version)
            self._keep(version, identity)
            return schema_id

    def schema(self, schema_id: int) -> str:
        """The text registered first under an id. Raises UnknownSchema."""
        text = self._texts.get(schema_id)
        if text is None:
            raise UnknownSchema(f"no schema {schema_id} of {len(self._texts)}")
        return text

    def latest(self, subject: str) -> Version:
        """The newest version of a subject. Raises UnknownSchema."""
        return self.versions(subject)[-1]

    def subjects(self) -> list[str]:
        return sorted(self._subjects)

    def versions(self, subject: str) -> list[Version]:
        """All versions, oldest first. Raises UnknownSchema for a subject that does not exist."""
        if subject not in self._subjects:
            raise UnknownSchema(f"no subject {subject!r}")
        return list(self._subjects[subject])

    def uses(self, schema_id: int) -> list[Version]:
        """Every subject and version that holds an id."""
        return [version for subject in self.subjects() for version in self._subjects[subject] if version.id == schema_id]

    def find(self, subject: str, text: str) -> Version | None:
        """The version of `subject` that is `text`. Raises SchemaRefused when it is no schema, UnknownSchema for the subject."""
        identity, _ = parse(text)
        self.versions(subject)
        return self._find(subject, identity)

    def _find(self, subject: str, identity: str) -> Version | None:
        schema_id = self._ids.get(identity)
        return next((version for version in self._subjects.get(subject, []) if version.id == schema_id), None)

    def _keep(self, version: Version, identity: str) -> None:
        self._texts.setdefault(version.id, version.text)
        self._ids.setdefault(identity, version.id)
        self._subjects.setdefault(version.subject, []).append(version)

    def _append(self, version: Version) -> None:
        """On disk before it is answered: an id that a producer has written into Kafka must survive."""
        if self._path is None:
            return
        line = json.dumps(version._asdict()).encode() + b"\n"
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _load(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            version = Version(**json.loads(line))
            self._keep(version, parse(version.text)[0])
        if len(whole) < len(data):  # the process died within its last line, which was never answered
            with path.open("r+b") as file:
                file.truncate(len(whole))
                os.fsync(file.fileno())


def parse(text: str) -> tuple[str, avro.schema.Schema]:
    """(identity, parsed schema) of a text. Raises SchemaRefused(42201) for what is no Avro schema."""
    if len(text) > TEXT_BYTES_MAX:
        raise SchemaRefused(42201, f"a schema of {len(text)} bytes; the limit is {TEXT_BYTES_MAX}")
    try:
        parsed = avro.schema.parse(text)
        raw = json.loads(text)
    except RecursionError:
        raise SchemaRefused(42201, "the schema nests too deep") from None
    except Exception as error:
        raise SchemaRefused(42201, f"not an Avro schema: {str(error)[:300]}") from None
    return json.dumps(_plain(raw), sort_keys=True, separators=(",", ":")), parsed


def _plain(raw: Any) -> Any:
    """{"type": "string"} is "string"."""
    if isinstance(raw, dict):
        if set(raw) == {"type"} and isinstance(raw["type"], str):
            return raw["type"]
        return {key: _plain(value) if key in ("type", "items", "values", "fields") else value for key, value in raw.items()}
    return [_plain(child) for child in raw] if isinstance(raw, list) else raw


def incompatibilities(new: avro.schema.Schema, old_text: str) -> list[str]:
    """Why `new` cannot read what `old_text` wrote, or the other way round; empty when both can."""
    old = parse(old_text)[1]
    faults = []
    for what, reader, writer in (("the new schema cannot read it", new, old), ("it cannot read the new schema", old, new)):
        result = ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)
        if result.compatibility != SchemaCompatibilityType.compatible:
            faults.append(f"{what}: {', '.join(sorted(result.messages)) or 'types differ'}"[:300])
    return faults
