"""The models by name: adding one here makes it trainable, servable and covered by the conformance tests."""

from __future__ import annotations

from headrace.models.fm import FM, Linear
from headrace.models.lr import LR

Model = Linear
"""Two verbs, predict then learn; a sample is F slots, a row is dim floats. See fm.py for the shapes."""

MODELS: dict[str, type[FM] | type[LR]] = {"fm": FM, "lr": LR}
"""Made with the fields of the feature set: `MODELS[name](fields_of(SLOTS, SIDE))`; `dim(factors)` without."""
