"""A configuration handed to a child process as a file, so that the child is configured exactly as its parent is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.config import Config, show


@contextmanager
def of(config: Config) -> Iterator[Path]:
    """A headrace.toml of `config` that lasts as long as the block."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        file = Path(folder) / "headrace.toml"
        file.write_text(show(config))
        yield file
