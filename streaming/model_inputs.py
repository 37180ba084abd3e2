"""A model's inputs over a feature set, for the stages that learn, score and publish."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.features.feature_set import BASE, FeatureSet
from headrace.models.inputs import Inputs, Transform
from headrace.schemas.hashing import feature_key


def inputs_of(feature_set: FeatureSet = BASE, transforms: Sequence[Transform] = ()) -> Inputs:
    """Raises TransformError for a transform of what the set does not have."""
    return Inputs(feature_set.slots, feature_set.side, feature_set.empty_keys, feature_set.numbers, transforms,
                  lambda name: feature_key(name, ""), feature_set.blank_numbers)
