"""Redis as a peer, pipelined over a unix socket: MGET and MSET of values as wide as a row of the parameter server, and any commands.

The requests are made beforehand and answers are only counted, so that the time is Redis's and the socket's and no client library's.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

IN_FLIGHT = 4
OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
HUNG_UP = "Redis has hung up"


class RedisAbsent(Exception):
    """There is no redis-server on the PATH; the message says how to get one."""


@contextmanager
def redis() -> Iterator[socket.socket]:
    """As `redis_of`, without its process."""
    with redis_of() as (connection, _):
        yield connection


@contextmanager
def redis_of() -> Iterator[tuple[socket.socket, int]]:
    """The process's number and a connection to a server of its own: in memory, writing nothing to disk. Raises RedisAbsent."""
    if shutil.which("redis-server") is None:
        raise RedisAbsent("this bench measures beside Redis, and there is no redis-server: apt-get install redis-server")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "redis.sock")
        command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield _connected(path), process.pid
        finally:
            process.terminate()
            process.wait(30)


def _connected(path: str) -> socket.socket:
    ends = time.monotonic() + 30
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > ends:
                raise
            time.sleep(0.02)


def mget(keys: np.ndarray) -> bytes:
    """The request of uint64[n]: keys are eight bytes, as they are."""
    return request(b"MGET", [key.tobytes() for key in keys])


def mset(keys: np.ndarray, values: np.ndarray) -> bytes:
    """The request of uint64[n] and float32[n, d]."""
    return request(b"MSET", [part for key, value in zip(keys, values, strict=True) for part in (key.tobytes(), value.tobytes())])


def answer_bytes(keys: int, dim: int) -> int:
    """Of an MGET of keys that all have a value."""
    return len(b"*%d\r\n" % keys) + keys * (len(b"$%d\r\n" % (4 * dim)) + 4 * dim + 2)


def ask(connection: socket.socket, requests: Sequence[bytes], answer: int) -> None:
    """Send all, with up to 4 on their way, and take an answer of so many bytes to each."""
    buffer = memoryview(bytearray(1 << 20))
    sent = 0
    for done in range(len(requests)):
        while sent < min(done + IN_FLIGHT, len(requests)):
            connection.sendall(requests[sent])
            sent += 1
        left = answer
        while left:
            came = connection.recv_into(buffer, min(left, len(buffer)))
            assert came, HUNG_UP
            left -= came


def ask_until_pong(connection: socket.socket, requests: Sequence[bytes]) -> None:
    """Send all, each of which ends with a PING, with up to 4 on their way; answers may be of any length and hold no PONG of their own."""
    sent, done, tail = 0, 0, b""
    while done < len(requests):
        while sent < min(done + IN_FLIGHT, len(requests)):
            connection.sendall(requests[sent])
            sent += 1
        came = connection.recv(1 << 20)
        assert came, HUNG_UP
        data = tail + came
        done += data.count(PONG)
        tail = data[1 - len(PONG) :] if len(data) >= len(PONG) else data


def said(connection: socket.socket, verb: bytes, *parts: bytes) -> bytes:
    """The answer to one command, which is a line or a number, without its end."""
    connection.sendall(request(verb, list(parts)))
    data = b""
    while not data.endswith(b"\r\n"):
        came = connection.recv(1 << 16)
        assert came, HUNG_UP
        data += came
    return data[1:-2]


def request(verb: bytes, parts: list[bytes]) -> bytes:
    """A command as it is sent."""
    return b"*%d\r\n$%d\r\n%s\r\n" % (1 + len(parts), len(verb), verb) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
