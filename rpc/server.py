"""The shell around Arrow Flight: verbs, one at a time, error codes instead of tracebacks.

A verb is a callable (header, arrays) -> (header, arrays). A client opens one DoExchange stream a verb and keeps it; each message on it
is one call, and runs on the stream's thread in its turn (rpc/owner.py). An error answers on the same stream as
{"error": {"code", "message"}} and the stream goes on.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import flight

from headrace.rpc import access
from headrace.rpc.errors import Internal, RpcError, UnknownVerb
from headrace.rpc.memory import keep_freed
from headrace.rpc.message import SCHEMA, Arrays, Header, decode, encode
from headrace.rpc.owner import Owner

log = logging.getLogger(__name__)


class Later(NamedTuple):
    """An answer that goes out when `then` has returned: outside of the owner's turn, so that other callers do not wait for it."""

    header: Header
    arrays: Arrays
    then: Callable[[], None]


Verb = Callable[[Header, Arrays], tuple[Header, Arrays] | Later]


class Exposed(Exception):
    """A server would be reached by other machines without a token or in the clear: set rpc.token_file, rpc.tls_cert and rpc.tls_key."""


class Server(flight.FlightServerBase):
    """Serves `verbs` at host:port; `port` 0 takes a free one (read `port` after). Verbs take turns at `owner`, which the caller starts and
    stops.

    A host that is not loopback needs a token and TLS (rpc/access.py): raises Exposed.
    """

    def __init__(self, host: str, port: int, verbs: Mapping[str, Verb], owner: Owner) -> None:
        found = access.used()
        if not (found.safe or loopback(host)):
            raise Exposed(f"refusing to serve on {host}, which other machines can reach: set rpc.token_file, rpc.tls_cert and rpc.tls_key")
        keep_freed()
        more: dict[str, Any] = {"middleware": {"token": _Asks(found.token)}} if found.token else {}
        if found.cert:
            more["tls_certificates"] = [(Path(found.cert).read_bytes(), Path(found.key).read_bytes())]
        super().__init__(f"grpc{'+tls' if found.cert else ''}://{host}:{port}", **more)
        self.host = host
        self._verbs = dict(verbs)
        self._owner = owner
        self._closing = False

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def shutdown(self) -> None:
        """Stop listening, and end open streams at their next message: clients keep them open, and gRPC would wait for that."""
        self._closing = True
        ending = threading.Thread(target=super().shutdown, name="flight-shutdown", daemon=True)
        ending.start()
        ending.join(0.5)

    def do_exchange(self, context, descriptor, reader, writer) -> None:
        name = (descriptor.command or b"").decode("utf-8", "replace")
        writer.begin(SCHEMA)
        for chunk in _chunks(reader):
            if self._closing:
                raise flight.FlightUnavailableError("the server is stopping")
            writer.write_metadata(self._answer(name, chunk))

    def _answer(self, name: str, chunk: flight.FlightStreamChunk) -> bytes:
        try:
            verb = self._verbs.get(name)
            if verb is None:
                raise UnknownVerb(f"{name!r}; known: {', '.join(sorted(self._verbs))}")
            header, arrays = decode(chunk.app_metadata)
            answer = self._owner.call(lambda: verb(header, arrays))
            if isinstance(answer, Later):
                answer.then()
            return encode(answer[0], answer[1])
        except RpcError as error:
            code, message = error.code, str(error)
        except Exception:
            number = uuid.uuid4().hex[:8]
            log.exception("verb %s failed, number %s", name, number)
            code, message = Internal.code, f"{name} failed; the server's log has the cause under {number}"
        return encode({"error": {"code": code, "message": message}}, {})


class _Asks(flight.ServerMiddlewareFactory):
    """Turns away a call that does not show the token."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._wanted = f"Bearer {token}".encode()

    def start_call(self, info: Any, headers: Any) -> None:
        shown = [one if isinstance(one, bytes) else one.encode() for one in headers.get("authorization", [])]
        if not any(hmac.compare_digest(one, self._wanted) for one in shown):
            raise flight.FlightUnauthenticatedError("a token is asked for, and none that is right was shown")


def loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _chunks(reader):
    try:
        yield from reader
    except flight.FlightError:
        return  # the client went away
