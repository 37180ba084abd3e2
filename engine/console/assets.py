"""The files of the pages: read once, served as they are, known by their digest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "static"
KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
         ".md": "text/plain; charset=utf-8"}


class Asset(NamedTuple):
    """A file, its media type, and the path with its digest, under which it never changes."""

    body: bytes
    kind: str
    path: str
    href: str


def assets(folder: Path = FOLDER) -> dict[str, Asset]:
    """name -> the asset, of every file in static/."""
    found = {}
    for file in sorted(folder.iterdir()):
        body, path = file.read_bytes(), f"/console/static/{file.name}"
        found[file.name] = Asset(body, KINDS[file.suffix], path, f"{path}?v={hashlib.sha256(body).hexdigest()[:12]}")
    return found
