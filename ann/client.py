"""The caller's side of ann/service.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.rpc.client import Client
from headrace.rpc.freshness import Newest, from_header


class Nearest(NamedTuple):
    """`found`: the id asked for has a vector; ids best first, their scores float32[m], sequence of the space (-1: it has no vectors), the
    newest cause that its vectors have seen."""

    found: bool
    ids: list[str]
    scores: np.ndarray
    sequence: int
    newest: Newest | None = None


class AnnClient:
    """Calls the ann role at `address` ("host:port"). Calls are tried again for `retry_s` while it restarts; errors: rpc/errors.py."""

    def __init__(self, address: str, timeout_s: float = 10.0, retry_s: float = 0.3) -> None:
        self._client = Client(address, timeout_s)
        self._retry_s = retry_s

    def search(self, space: str, vectors: np.ndarray, k: int, exclude: Sequence[str] = ()) -> tuple[list[list[str]], np.ndarray, int]:
        """(ids, scores float32[q,m], sequence) of the k best for each query float32[q,d]. Refused for a wrong dimension, NaN or k."""
        header, arrays = self._client.call_until(self._retry_s, "search", {"space": space, "k": k, "exclude": list(exclude)},
                                                 {"vectors": np.asarray(vectors, np.float32)})
        return header["ids"], arrays["scores"], header["sequence"]

    def nearest(self, space: str, of: str, name: str, k: int) -> Nearest:
        """The k best ids of `space` for the vector of id `name` in space `of`."""
        header, arrays = self._client.call_until(self._retry_s, "nearest", {"space": space, "of": of, "id": name, "k": k})
        return Nearest(header["found"], header["ids"], arrays["scores"], header["sequence"], from_header(header.get("newest")))

    def upsert(self, space: str, ids: Sequence[str], vectors: np.ndarray, sequence: np.ndarray, deleted: Sequence[bool] = ()) -> int:
        """Set or delete vectors float32[n,d] under sequences int64[n]; how many were not older than what is held. May be repeated."""
        header, _ = self._client.call_until(self._retry_s, "upsert",
                                            {"space": space, "ids": list(ids), "deleted": list(deleted) or [False] * len(ids)},
                                            {"vectors": np.asarray(vectors, np.float32), "sequence": np.asarray(sequence, np.int64)})
        return header["applied"]

    def stats(self) -> dict[str, Any]:
        """{space: {rows, dim, sequence}, newest_ts_ms}."""
        return self._client.call_until(self._retry_s, "stats")[0]

    def close(self) -> None:
        self._client.close()
