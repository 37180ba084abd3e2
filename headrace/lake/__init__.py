"""The sample library: every sample of the topic once, as Parquet by event time. See docs/lake.md.

    from headrace import lake
    table = lake.read(".headrace/lake", since="2026-11-30", target="click")     # pyarrow.Table; .to_pandas() is pandas
    keys = lake.matrix(table, "feature_keys")                                   # uint64[n, F]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.lake.reader import matrix, read

__all__ = ["matrix", "read"]


def __getattr__(name: str) -> Any:
    """Arrow is imported when something is read."""
    if name in __all__:
        from headrace.lake import reader

        return getattr(reader, name)
    raise AttributeError(f"module 'headrace.lake' has no attribute {name!r}")
