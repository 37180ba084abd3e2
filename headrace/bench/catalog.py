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
    "poison": Entry("poison", "featurize with 1 % poison against none, dead letters to a real broker", "headrace[local]"),
    "rpc": Entry("rpc_loopback", "calls over the Flight shell on loopback"),
}
