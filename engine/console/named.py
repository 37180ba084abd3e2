"""Ids that people type into a page."""

from __future__ import annotations

ID_BYTES_MAX = 256


class Misnamed(Exception):
    """What was typed is no id; the message says what one is."""


def named(field: str, value: str) -> str:
    """`value` as an id, without the blanks around it that come with copying. Raises Misnamed."""
    value = value.strip()
    try:
        if 1 <= len(value.encode()) <= ID_BYTES_MAX:
            return value
    except UnicodeEncodeError:  # a lone surrogate
        pass
    raise Misnamed(f"Give the {field}'s id, a text of 1 to {ID_BYTES_MAX} bytes.")
