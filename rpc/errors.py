"""What can go wrong between two processes, each with the operator's next step."""

from __future__ import annotations


class RpcError(Exception):
    """Base of all; `code` is what travels."""

    code = "internal"


class BadMessage(RpcError):
    """The sender built a message that does not follow the verb's contract: mend the sender; nothing was applied."""

    code = "bad_message"


class UnknownVerb(RpcError):
    """The server has no such verb: client and server are of different versions."""

    code = "unknown_verb"


class Refused(RpcError):
    """Understood and not done, for the reason said (a limit, a non-finite gradient): nothing was applied; mend the input."""

    code = "refused"


class TooOld(RpcError):
    """A cause lies before the applied ring: whether it was applied can no longer be known. Stop the job; lengthen the ring or backfill."""

    code = "too_old"


class Stale(RpcError):
    """More pushes than ps.staleness_max were applied since the rows were pulled: nothing was applied; pull again and compute anew."""

    code = "stale"


class Unavailable(RpcError):
    """Nobody answers at the address: look at `headrace status` and the role's log."""

    code = "unavailable"


class Forbidden(RpcError):
    """The server asks for a token, and this one is not its: rpc.token_file must be the same for all processes of a deployment."""

    code = "forbidden"


class Internal(RpcError):
    """A defect of the server: its log has the traceback under the number given."""

    code = "internal"


BY_CODE: dict[str, type[RpcError]] = {kind.code: kind for kind in (BadMessage, UnknownVerb, Refused, TooOld, Stale, Unavailable, Forbidden,
                                                                Internal)}
