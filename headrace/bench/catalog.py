"""Name -> bench: the table that `headrace bench` reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A bench: a module of headrace.bench with `measure(quick) -> list[Row]`, what it measures, and what must be installed for it."""

    module: str
    what: str
    needs: str = "headrace[serve]"


CATALOG: dict[str, Entry] = {
    "ps.table": Entry("ps_table", "lookups and updates of a shard's table, of the random cache lines that a core reads"),
    "replay.encode": Entry("replay_encode", "interactions made from rows and encoded, into a null sink"),
    "rpc": Entry("rpc_loopback", "calls over the Flight shell on loopback"),
}
