"""One seed from beginning to end."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.protocol.ailments import Healthy
from tests.protocol.plan import Plan
from tests.protocol.verdict import judge
from tests.protocol.world import World


def simulate(seed: int, ailment: Healthy | None = None, trace: Callable[[str], None] | None = None, rocks: bool = False) -> Counter[str]:
    """What happened, counted. Raises Wrong when the protocol failed."""
    memory = Path("/dev/shm")  # a world opens thousands of small files
    with tempfile.TemporaryDirectory(prefix="headrace-protocol-", dir=memory if memory.is_dir() else None) as folder:
        world = World(Plan.of(seed, rocks), Path(folder), ailment or Healthy(), trace)
        if trace is not None:
            trace(str(world.plan))
        world.run()
        judge(world)
        counts = world.counts
        counts["events"] = len(world.log)
        counts["duplicates"] = sum(1 for _ in world.samples) - len({sample.cause for sample in world.samples})
        counts["stopped"] = sum(bool(job.stopped) for job in world.jobs)
        counts["reads"] = len(world.reads)
        return counts
