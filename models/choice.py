"""Which samples are learnt. The others have weight 0: they are pushed under their cause, scored, and move nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.models.progressive import sampled
from headrace.rpc.causes import Causes

_SALT = 0x5851F42D4C957F2D  # so that what is watched or compared by another share of the hash is chosen independently


class Choice(NamedTuple):
    """`kept`: share of the negatives, chosen by the hash of their causes, so that every process, retry and backfill chooses alike.
    `shown_min`: of users who had been shown fewer items before, decayed as the frozen user_impressions is, nothing is learnt."""

    kept: float = 1.0
    shown_min: float = 0.0

    def active(self, weight: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """weight float32[n] with 0 for users shown too little: `shown` float32[n]."""
        return np.where(shown < self.shown_min, 0, weight).astype(np.float32) if self.shown_min else weight

    def sampled(self, weight: np.ndarray, label: np.ndarray, causes: Causes) -> np.ndarray:
        """weight float32[n] with 0 for the negatives that are left out."""
        if self.kept >= 1.0:
            return weight
        return np.where((label < 0.5) & ~sampled(*causes, self.kept, _SALT), 0, weight).astype(np.float32)


EVERY = Choice()
"""All are learnt."""
