"""The feature set and the model's inputs that the configuration names."""

from __future__ import annotations

from headrace.config import Config, Model
from headrace.connections import ConfigError
from headrace.features.definition_files import texts
from headrace.features.definitions import DefinitionError
from headrace.features.feature_set import BASE, FeatureSet
from headrace.models.inputs import Inputs, Transform, TransformError, transforms_of
from headrace.streaming.model_inputs import inputs_of


def feature_set_of(config: Config) -> FeatureSet:
    """Of [features] definitions. Raises ConfigError: with the file and line of a definition that is wrong."""
    if not config.features.definitions:
        return BASE
    try:
        return FeatureSet.of(texts(config.features.definitions))
    except DefinitionError as error:
        raise ConfigError(str(error)) from None


def model_inputs(config: Config, model: Model | None = None) -> Inputs:
    """Of `model`, of the served one by default. Raises ConfigError."""
    try:
        return inputs_of(feature_set_of(config), transforms(model or config.model))
    except TransformError as error:
        raise ConfigError(str(error)) from None


def transforms(model: Model) -> tuple[Transform, ...]:
    """Raises ConfigError."""
    try:
        return transforms_of(model.transforms)
    except TransformError as error:
        raise ConfigError(str(error)) from None
