"""Whether processes hold the same served rows: by slot the sum of hashes of (key, row as served), asked page by page.

A sum does not know the order in which rows lie. A page is a call, so that pulls do not wait for long; who changes meanwhile says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from headrace.ps.encoding import served_as
from headrace.ps.encoding_kernels import digest
from headrace.ps.index import kernel_input
from headrace.ps.table import SLOTS, Table
from headrace.rpc.client import Client
from headrace.rpc.message import Arrays

PAGE_ROWS = 16384


class Digest(NamedTuple):
    """Of the slots (first, one after the last) of a table: sums uint64[64], rows int64[64]; `still`: nothing changed while it was asked."""

    slots: tuple[int, int]
    sums: np.ndarray
    rows: np.ndarray
    still: bool

    def __str__(self) -> str:
        return f"{int(np.bitwise_xor.reduce(self.sums * np.arange(1, 2 * SLOTS, 2, dtype=np.uint64))):016x}"


def page(table: Table, start: int, encoding: str) -> tuple[Arrays, int]:
    """(sums and rows of the row numbers from `start` on, as served under `encoding`; start of the next page or -1)."""
    sums, rows = np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.int64)
    keys, weights, following = table.page(start, PAGE_ROWS)
    digest(kernel_input(keys), kernel_input(served_as(weights, encoding).view(np.uint32)), sums, rows)
    return {"sums": sums, "rows": rows}, following


def digest_of(client: Client, model: str, table: str) -> Digest:
    """What a shard or a replica holds. Raises what calls raise."""
    sums, rows, cursor, states = np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.int64), 0, set[str]()
    slots = (0, SLOTS)
    while cursor >= 0:
        header, arrays = client.call("digest", {"model": model, "table": table, "cursor": cursor})
        sums, rows = sums + arrays["sums"], rows + arrays["rows"]
        cursor, slots = header["cursor"], (header["slots"][0], header["slots"][1])
        states.add(str(header["state"]))
    return Digest(slots, sums, rows, len(states) == 1)


def whole(parts: Sequence[Digest]) -> Digest:
    """Of all shards together."""
    return Digest((min(one.slots[0] for one in parts), max(one.slots[1] for one in parts)), np.sum([one.sums for one in parts], axis=0),
                  np.sum([one.rows for one in parts], axis=0), all(one.still for one in parts))


def differing(one: Digest, other: Digest) -> list[int]:
    """Slots that both hold, and not alike."""
    slots = np.arange(max(one.slots[0], other.slots[0]), min(one.slots[1], other.slots[1]))
    return [int(slot) for slot in slots if one.sums[slot] != other.sums[slot] or one.rows[slot] != other.rows[slot]]


def compared(shards: Sequence[Client], replicas: Sequence[Client], model: str, table: str,
             again: Callable[[], bool]) -> tuple[Digest, list[Digest], list[list[int]]]:
    """(what training serves, what each replica holds, the slots in which it differs), asked anew while they differ and `again()`."""
    while True:
        trained = whole([digest_of(one, model, table) for one in shards])
        held = [digest_of(one, model, table) for one in replicas]
        found = [differing(trained, one) for one in held]
        if not any(found) or not again():
            return trained, held, found
