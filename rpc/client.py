"""The caller's side of rpc/server.py: one kept-open stream a verb, deadlines, errors by code."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import flight

from headrace.rpc import access
from headrace.rpc.errors import BY_CODE, Forbidden, Internal, Unavailable
from headrace.rpc.memory import keep_freed
from headrace.rpc.message import SCHEMA, Arrays, Header, decode, encode

# The last one is how long an attempt to connect may take too, beside the pauses between attempts: a busy server answers in its own time.
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 500), ("grpc.min_reconnect_backoff_ms", 3000)]

ELSEWHERE_S = 4.0  # a call's, where another place may answer


class Client:
    """Calls verbs at `address`: "host:port", or several of which one answers, "host:port|host:port": a call that one leaves unanswered is
    Unavailable, and the next call goes to the next. Safe to share between threads (calls are serialised); not across a fork.

    A gRPC deadline covers a whole stream, so a stream is opened with twice `timeout_s` and replaced after `timeout_s`: each call has at
    least `timeout_s` seconds. Raises Unavailable when nobody answers, and the error of rpc/errors.py that the server named.
    """

    def __init__(self, address: str, timeout_s: float = 30.0) -> None:
        keep_freed()
        self._places, self._place = address.split("|"), 0
        self._timeout_s = timeout_s if len(self._places) == 1 else min(timeout_s, ELSEWHERE_S)
        self._access = access.used()
        self._lock = threading.Lock()
        self._flight: flight.FlightClient | None = None
        self._streams: dict[str, tuple[Any, Any, float]] = {}

    @property
    def address(self) -> str:
        """Where it calls now."""
        return self._places[self._place]

    def call(self, verb: str, header: Mapping[str, Any] | None = None,
             arrays: Mapping[str, np.ndarray] | None = None) -> tuple[Header, Arrays]:
        """One call. Not retried here: whether a retry is safe is the room's knowledge (reads are, pushes with causes are)."""
        return self.begin(verb, header, arrays)()

    def begin(self, verb: str, header: Mapping[str, Any] | None = None,
              arrays: Mapping[str, np.ndarray] | None = None) -> Callable[[], tuple[Header, Arrays]]:
        """Send a call; what this returns waits for the answer, and must be called once, by this thread: nobody else calls until then.

        So one thread has several servers work at once. Who begins at several clients does so in one order everywhere, or two threads may
        wait for each other. Raises Unavailable, as what it returns does.
        """
        message = encode(header or {}, arrays or {})
        self._lock.acquire()
        try:
            writer, reader = self._stream(verb)
            writer.write_metadata(message)
        except BaseException as error:
            self._gave_up(verb, error)
            raise

        def finish() -> tuple[Header, Arrays]:
            try:
                chunk = reader.read_chunk()
            except BaseException as error:
                self._gave_up(verb, error)
                raise
            try:
                answer, answered = decode(chunk.app_metadata)
                if len(self._places) > 1 and answer.get("error", {}).get("code") == Unavailable.code:
                    self._move_on()
            finally:
                self._lock.release()
            if "error" in answer:
                raise BY_CODE.get(answer["error"]["code"], Internal)(answer["error"]["message"])
            return answer, answered

        return finish

    def _gave_up(self, verb: str, error: BaseException) -> None:
        """End a call that failed: the streams are no good any more. Raises Unavailable for what says that nobody answers."""
        where = self.address
        self._move_on()
        self._lock.release()
        if isinstance(error, flight.FlightUnauthenticatedError):
            raise Forbidden(f"{where} ({verb}) does not take our token: look at rpc.token_file here and there") from None
        if isinstance(error, (flight.FlightError, pa.ArrowException, StopIteration, OSError)):
            raise Unavailable(f"{where} ({verb}): {str(error).splitlines()[0][:200] or type(error).__name__}") from None

    def call_until(self, deadline_s: float, verb: str, header: Mapping[str, Any] | None = None,
                   arrays: Mapping[str, np.ndarray] | None = None) -> tuple[Header, Arrays]:
        """`call`, tried again while the server is unavailable, for `deadline_s` seconds. For verbs that may be repeated."""
        until = time.monotonic() + deadline_s
        while True:
            try:
                return self.call(verb, header, arrays)
            except Unavailable:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _stream(self, verb: str) -> tuple[Any, Any]:
        now = time.monotonic()
        held = self._streams.get(verb)
        if held is not None and now - held[2] < self._timeout_s:
            return held[0], held[1]
        if held is not None:
            _close(held[0])
        if self._flight is None:
            self._flight = self._connected()
        shown = [(b"authorization", f"Bearer {self._access.token}".encode())] if self._access.token else []
        writer, reader = self._flight.do_exchange(flight.FlightDescriptor.for_command(verb.encode()),
                                                  flight.FlightCallOptions(timeout=2 * self._timeout_s, headers=shown))
        writer.begin(SCHEMA)
        self._streams[verb] = (writer, reader, now)
        return writer, reader

    def _connected(self) -> flight.FlightClient:
        if not self._access.tls:
            return flight.FlightClient(f"grpc://{self.address}", generic_options=_OPTIONS)
        roots = {"tls_root_certs": Path(self._access.ca).read_bytes()} if self._access.ca else {}
        return flight.FlightClient(f"grpc+tls://{self.address}", generic_options=_OPTIONS, **roots)

    def _move_on(self) -> None:
        """The streams are no good any more; the next call goes to the next place."""
        self._forget()
        self._place = (self._place + 1) % len(self._places)

    def _forget(self) -> None:
        for writer, _, _ in self._streams.values():
            _close(writer)
        self._streams.clear()
        if self._flight is not None:
            self._flight.close()
            self._flight = None


def _close(writer) -> None:
    try:
        writer.close()
    except (flight.FlightError, pa.ArrowException, OSError):
        pass
