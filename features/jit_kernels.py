"""How this room's kernels are compiled: without Numba's counts of references.

An array that is passed from one compiled function to the next, or sliced, is counted there and back by atomic steps: of a definition that
folds an event in 30 ns they made 230. Without them a function must make no arrays; views are none. The option has an underscore in Numba
(0.68, whose version is pinned): should it go, drop it here, and kernels are slow and right.
"""

from __future__ import annotations

from typing import Any

import numba

_UNCOUNTED: dict[str, Any] = {"_nrt": False}
inner = numba.njit(**_UNCOUNTED)
"""A function that kernels call."""
kernel = numba.njit(cache=True, nogil=True, **_UNCOUNTED)
"""One that Python calls: cached, and others run meanwhile."""
