"""What a shard says of a user, and of pairs of a user and an item."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class User(NamedTuple):
    """Lifetime counts; items uint64[64], newest first, 0 where there are fewer."""

    found: bool
    impressions: int
    clicks: int
    recent: np.ndarray
    recent_clicked: np.ndarray


class Sample(NamedTuple):
    """keys uint64[m,F], values float32[m,F], numbers float32[m,K]."""

    keys: np.ndarray
    values: np.ndarray
    numbers: np.ndarray
