"""Flink's jobs as SQL and Python stages."""

import builtins as _builtins
import sys as _sys

# PyFlink's worker replaces builtins.print by a function that its module does not name "print", and Numba's import looks it up there.
_worker = _sys.modules.get(_builtins.print.__module__)
if _worker is not None and not hasattr(_worker, "print"):
    _worker.print = _builtins.print  # type: ignore[attr-defined]
