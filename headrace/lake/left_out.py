"""What of a lake training does not learn, by the rules of a configuration: told from cause, label and numbers, as training tells it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.layout import NUMBERS
from headrace.lake.reader import Lake, by_hour
from headrace.models.choice import Choice
from headrace.rpc.causes import Causes

COLUMNS = ("source", "partition", "offset", "target", "label", "weight", "action_ts_ms", "numbers")
RULES = ("inactive_users", "negatives_left_out", "accidental_clicks")
_SHOWN = NUMBERS.index("user_impressions")


def left_out(lake: Lake, choice: Choice) -> dict[str, dict[str, int]]:
    """target -> samples of users shown too little, negatives that are not kept, and clicks that count as none, which are learnt as
    negatives. Opens every file. Raises LakeDamaged."""
    found: dict[str, Counter[str]] = {}
    for table in by_hour(lake, columns=COLUMNS):
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS[:6]}
        label, weight = columns["label"].astype(np.float32), columns["weight"].astype(np.float32)
        active = choice.active(weight, _shown(table["numbers"].combine_chunks()))
        kept = choice.sampled(active, label, Causes(*(columns[name] for name in COLUMNS[:3])))
        accidental = (label < 0.5) & pc.is_valid(table["action_ts_ms"]).to_numpy(zero_copy_only=False)
        for rule, rows in zip(RULES, ((weight != 0) & (active == 0), (active != 0) & (kept == 0), accidental), strict=True):
            for target, count in Counter(columns["target"][rows].tolist()).items():
                found.setdefault(target, Counter())[rule] += count
    return {target: {rule: counts[rule] for rule in RULES} for target, counts in sorted(found.items())}


def _shown(numbers: pa.ListArray) -> np.ndarray:
    """float32[n]: user_impressions of each row; infinite where a feature set has none."""
    long_enough = pc.greater(pc.list_value_length(numbers), _SHOWN).to_numpy(zero_copy_only=False)
    made = np.full(len(numbers), np.inf, np.float32)
    if long_enough.any():
        made[long_enough] = pc.list_element(numbers.filter(pa.array(long_enough)), _SHOWN).to_numpy(zero_copy_only=False)
    return made
