"""headrace: a stream of interactions, led to a model. See docs/architecture.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.api import AsyncClient, Client, EngineError

__all__ = ["AsyncClient", "Client", "EngineError"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The client is imported when asked for: a room does not pay for httpx."""
    if name in __all__:
        from headrace import api

        return getattr(api, name)
    raise AttributeError(f"module 'headrace' has no attribute {name!r}")
