"""What can be wrong with bytes or with the registry, each with the operator's next step."""

from __future__ import annotations

from headrace.schemas.reasons import REASONS


class Malformed(Exception):
    """A record that cannot be used: send it to dead-letters under `reason` (a code of schemas.reasons); `detail` is one sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, f"{reason!r} is not in schemas/reasons.py: add it there, with a test that provokes it"
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
