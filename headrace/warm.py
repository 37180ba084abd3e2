"""`python -m headrace.warm`: compiles every kernel once into Numba's cache, so that a first start is as quick as a second."""

from __future__ import annotations

import numpy as np

from headrace.config import Config
from headrace.features.layout import SIDE, SLOTS
from headrace.features.warm import compile_kernels
from headrace.models.batch import unique_keys
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.fm import probability
from headrace.ps.warm import warm_kernels
from headrace.serve import specs
from headrace.streaming.warm import compile_kernels as compile_streaming


def warm(config: Config) -> None:
    """Kernels of the features and their job, of the parameter server's tables, and of the models, at the dtypes that travel."""
    compile_kernels()
    compile_streaming()
    warm_kernels(specs(config.trained))
    keys, index = unique_keys(np.zeros((1, len(SLOTS)), np.uint64))
    one, values = np.ones(1, np.float32), np.ones(index.shape, np.float32)
    for kind in MODELS.values():
        model, rows = kind(fields_of(SLOTS, SIDE)), np.zeros((len(keys), kind.dim(config.model.factors)), np.float32)
        model.learn(rows, np.zeros(len(keys), np.int64), index, values, one, one, config.model.l2, config.model.learning_rate)
        probability(model.predict(rows, index, values))


if __name__ == "__main__":
    warm(Config())
