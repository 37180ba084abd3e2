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
    "pipeline": Entry("pipeline", "interactions/s through the jobs, each beside the same job with a function that does nothing",
                      "headrace[local]"),
    "replay.encode": Entry("replay_encode", "interactions made from rows and encoded, into a null sink"),
    "rpc": Entry("rpc_loopback", "calls over the Flight shell on loopback"),
    "world": Entry("world", "regret in simulated worlds with known click probabilities: ours, popularity, a daily copy; and after a shock"),
}
