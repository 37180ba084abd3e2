"""The shell around Arrow Flight: verbs, one at a time, error codes instead of tracebacks.

A verb is a callable (header, arrays) -> (header, arrays). A client opens one DoExchange stream a verb and keeps it; each message on it
is one call, and runs on the stream's thread in its turn (rpc/owner.py). An error answers on the same stream as
{"error": {"code", "message"}} and the stream goes on.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import uuid
from collections.abc import Callable, Mapping

from pyarrow import flight

from headrace.rpc.errors import Internal, RpcError, UnknownVerb
from headrace.rpc.memory import keep_freed
from headrace.rpc.message import SCHEMA, Arrays, Header, decode, encode
from headrace.rpc.owner import Owner

log = logging.getLogger(__name__)
Verb = Callable[[Header, Arrays], tuple[Header, Arrays]]


class Server(flight.FlightServerBase):
    """Serves `verbs` at host:port; `port` 0 takes a free one (read `port` after). Verbs take turns at `owner`, which the caller starts and
    stops.

    Raises ValueError for a host that is not loopback: tokens and TLS between hosts are not built yet.
    """

    def __init__(self, host: str, port: int, verbs: Mapping[str, Verb], owner: Owner) -> None:
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"refusing to serve on {host}: tokens and TLS are not built yet, use 127.0.0.1")
        keep_freed()
        super().__init__(f"grpc://{host}:{port}")
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
            return encode(*self._owner.call(lambda: verb(header, arrays)))
        except RpcError as error:
            code, message = error.code, str(error)
        except Exception:
            number = uuid.uuid4().hex[:8]
            log.exception("verb %s failed, number %s", name, number)
            code, message = Internal.code, f"{name} failed; the server's log has the cause under {number}"
        return encode({"error": {"code": code, "message": message}}, {})


def _chunks(reader):
    try:
        yield from reader
    except flight.FlightError:
        return  # the client went away
