"""How much waits in a job, of two counts that are made elsewhere: what entered and what left."""

from __future__ import annotations


class Waiting:
    """What entered and has not left. Some never leaves (a late event, a refused sample) and some leaves twice (after a restart), so the
    difference of a moment at which all was surely `through` is taken off from then on; one below it is a new zero, too."""

    def __init__(self) -> None:
        self._zero = 0

    def of(self, entered: int, left: int, through: bool) -> int:
        """Of counts that ascend."""
        difference = entered - left
        self._zero = difference if through else min(self._zero, difference)
        return difference - self._zero


class Quiet:
    """Whether counts have stood still for `quiet_ms`."""

    def __init__(self, quiet_ms: int) -> None:
        self._quiet_ms, self._since_ms = quiet_ms, 0
        self._last: tuple[int, ...] = ()

    def for_long(self, now_ms: int, *counts: int) -> bool:
        """With the counts of now."""
        if counts != self._last:
            self._last, self._since_ms = counts, now_ms
        return now_ms - self._since_ms >= self._quiet_ms
