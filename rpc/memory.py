"""Memory that a message leaves behind is kept for the next one."""

from __future__ import annotations

import ctypes
import functools

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 32 << 20
WHOLE_BYTES = 8 << 20


@functools.cache
def keep_freed() -> None:
    """Have glibc's malloc keep up to 32 MiB of freed memory an arena, and map only blocks of 8 MiB and more on their own.

    By default each message of some hundred kilobytes is copied into fresh pages, which are given back right after: 78 page faults a pull
    of 4,096 rows, half of its time. Setting one of the two ends glibc's own adaption of both, hence both. Nothing with another libc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, WHOLE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
