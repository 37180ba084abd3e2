"""What a model has to know of the slots of a sample: whose side they are on, and how far their factors reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

USER, ITEM = 1, 2

FACTOR_SCALE = {"user_id": 4.0}
"""A user has few samples and they come in a burst, so his own factors have to move farther a sample than those that he shares. AdaGrad
steps as far in every slot: scale is speed. 3 to 5 do alike; 4 for all of a user's slots, or for the item too, is worse (docs/models.md)."""


class Fields(NamedTuple):
    """side uint8[F]: 0 bias and context, 1 user, 2 item; scale float32[F]: what factors of the slot are multiplied with."""

    side: np.ndarray
    scale: np.ndarray

    def of(self, slots: np.ndarray) -> Fields:
        """Those of some slots (bool or int array)."""
        return Fields(self.side[slots], self.scale[slots])


def fields_of(slots: Sequence[str], side: np.ndarray) -> Fields:
    """From the names of a feature set's slots and their sides."""
    assert len(slots) == len(side), "one side a slot"
    return Fields(np.asarray(side, np.uint8), np.array([FACTOR_SCALE.get(slot, 1.0) for slot in slots], np.float32))
