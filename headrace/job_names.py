"""The names of the jobs under a configuration."""

from __future__ import annotations

from headrace.config import Config


def job_names(config: Config) -> tuple[str, ...]:
    """features, samples, train (of the served model), train-NAME of each of [models.NAME], vectors."""
    return ("features", "samples", "train", *(f"train-{name}" for name in config.models), "vectors")
