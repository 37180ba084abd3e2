"""People's labels over what users did: a sample of which somebody has said what it is carries that."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from headrace.labels.label import Unit

BY = pa.field("label_by", pa.string())
PERSON, ACTION = "person", "action"


def over(samples: pa.Table, verdicts: Mapping[Unit, float]) -> pa.Table:
    """`samples` (with item_id, user_id, target, label), `label` replaced where a verdict is of the item as shown to its user, or else of
    the item; and a column label_by: person or action."""
    labels, by = [], []
    for item, user, target, label in zip(*(samples[name].to_pylist() for name in ("item_id", "user_id", "target", "label")), strict=True):
        said = verdicts.get(Unit(item, user, target), verdicts.get(Unit(item, None, target)))
        labels.append(label if said is None else said)
        by.append(ACTION if said is None else PERSON)
    place = samples.schema.get_field_index("label")
    return samples.set_column(place, samples.schema.field(place), pa.array(labels, pa.float64())).append_column(BY, pa.array(by, BY.type))
