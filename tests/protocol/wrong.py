"""What a simulation raises when the protocol has counted, frozen or answered wrongly."""

from __future__ import annotations


class Wrong(AssertionError):
    """The message says what, by cause or key."""

    @classmethod
    def unless(cls, holds: bool, text: str) -> None:
        if not holds:
            raise cls(text)
