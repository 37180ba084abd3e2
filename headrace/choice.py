"""What of the samples is learnt, by the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.config import Config
from headrace.features.layout import NUMBERS
from headrace.models.choice import EVERY, Choice
from headrace.rpc.causes import Causes

_SHOWN = 4 * NUMBERS.index("user_impressions")


def choice_of(config: Config) -> Choice:
    """Of every model that is trained."""
    return Choice(config.samples.negatives_kept, float(config.samples.noise.inactive_user_events))


def learnt(choice: Choice, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of decoded `samples` that training learns."""
    if choice == EVERY or not samples:
        return list(samples)
    causes = Causes(*(np.array([one[name] for one in samples], dtype) for name, dtype in
                      (("source", np.int32), ("partition", np.int32), ("offset", np.int64))))
    shown = np.array([np.frombuffer(one["numbers"], "<f4", 1, _SHOWN)[0] for one in samples])
    weight, label = (np.array([one[name] for one in samples], np.float32) for name in ("weight", "label"))
    kept = choice.sampled(choice.active(weight, shown), label, causes) != 0
    return [one for one, is_kept in zip(samples, kept.tolist(), strict=True) if is_kept]
