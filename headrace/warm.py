"""`python -m headrace.warm`: compiles every kernel once into Numba's cache, so that a first start is as quick as a second."""

from __future__ import annotations

import numpy as np

from headrace.config import Config
from headrace.features.warm import compile_kernels
from headrace.models.batch import unique_keys
from headrace.models.catalog import MODELS
from headrace.models.fm import probability
from headrace.ps.warm import warm_kernels
from headrace.serve import specs


def warm(config: Config) -> None:
    """Kernels of the features, of the parameter server's tables, and of the models, at the dtypes that travel."""
    compile_kernels()
    warm_kernels(specs(config.trained))
    keys, index = unique_keys(np.zeros((1, 2), np.uint64))
    one = np.ones(1, np.float32)
    for model in MODELS.values():
        rows = np.zeros((len(keys), model.dim(config.model.factors)), np.float32)
        logits, _ = model.gradients(rows, index, np.ones((1, 2), np.float32), one, one, config.model.l2)
        probability(logits)


if __name__ == "__main__":
    warm(Config())
