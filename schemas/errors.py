"""What can be wrong with bytes or with the registry, each with the operator's next step."""

from __future__ import annotations


class Malformed(Exception):
    """A record that cannot be used: send it to dead-letters under `reason` (a short stable code); `detail` is one sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RegistryUnavailable(Exception):
    """The schema registry does not answer: try the same records again later; they are not malformed."""


class UnknownSchema(Exception):
    """The registry answers and has no such id, subject or version: the bytes are not ours, or the registry lost its file."""


class SchemaRefused(Exception):
    """The registry refuses a schema: invalid (42201), or incompatible with an earlier version of its subject (409). Mend the schema."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
