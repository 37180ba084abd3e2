"""Compiles (or loads) every kernel that a shard or a replica will call, before it says that it is ready."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from headrace.ps import kernels
from headrace.ps.admission import ADMISSIONS
from headrace.ps.digest import page
from headrace.ps.index import LOAD_MAX, Index, kernel_input
from headrace.ps.spec import ModelSpec, TableSpec
from headrace.ps.table import Table


def warm_kernels(specs: Iterable[ModelSpec]) -> None:
    """Run each kernel once with the dtypes and the optimizers of `specs`, on tables of its own."""
    keys = kernel_input(np.arange(16, dtype=np.uint64))
    kernels.slots_of(keys)
    kernels.foreign(keys, 0, 64)
    kernels.repeated(keys, np.zeros((64, 2), np.uint64))
    index = Index(64)
    index.load_all(keys)
    arena = np.zeros(int(LOAD_MAX * 16384) + 4096, np.uint64)
    for start in range(0, len(arena), 4096):  # once past a growth: migrate
        index.find_or_insert(kernel_input(np.arange(start, start + 4096, dtype=np.uint64)[: len(arena) - start]), arena)
    index.remove(kernel_input(np.arange(4096, dtype=np.uint64)))
    for admission in ADMISSIONS.values():
        if admission is not None:
            admission(2, 64).admit(keys)
    for table_spec in {_kernels_of(t): t for spec in specs for t in spec.tables}.values():
        table = Table(table_spec, 64, timed=True)
        table.dropped = []
        table.pull(keys)
        table.push(keys, np.ones((len(keys), table_spec.dim), table.dtype))
        table.pull(keys)
        table.put(keys, table.pull(keys))
        table.remove(table.expired(1, 64))
        if table_spec.served:
            page(table, 0, table_spec.encoding)


def _kernels_of(spec: TableSpec) -> tuple[object, ...]:
    return spec.dtype, spec.optimizer, spec.dim, spec.init_scale > 0, spec.clips, spec.weight_bound > 0, spec.served, spec.encoding
