"""How many pushes a shard had applied between the pull that a gradient is of and its own push (the bound of Ho et al. 2013, SSP)."""

from __future__ import annotations

import numpy as np

BOUNDS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Staleness:
    """A histogram of pushes; `most`: beyond which a push is refused, 0 for no bound."""

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.counts = np.zeros(len(BOUNDS) + 1, np.int64)
        self.sum = self.worst = 0

    def observe(self, pushes: int) -> None:
        self.counts[np.searchsorted(BOUNDS, pushes)] += 1
        self.sum += pushes
        self.worst = max(self.worst, pushes)

    def buckets(self) -> list[tuple[str, int]]:
        """(upper bound, count up to it) as Prometheus has them."""
        summed = np.cumsum(self.counts).tolist()
        return [*((str(bound), count) for bound, count in zip(BOUNDS, summed, strict=False)), ("+Inf", summed[-1])]

    def told(self) -> dict[str, int | float]:
        """count, mean and worst of the pushes that said what they are of; p99 as the bound of its bucket, -1 beyond the last."""
        count = int(self.counts.sum())
        at = int(np.searchsorted(np.cumsum(self.counts), 0.99 * count)) if count else 0
        mean, p99 = self.sum / count if count else 0.0, BOUNDS[at] if at < len(BOUNDS) else -1
        return {"count": count, "mean": mean, "p99": p99, "worst": self.worst}
