"""Calls between processes that may die in between: lost, late, answered twice, or made by one who is dead already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.rpc.errors import RpcError, Unavailable
from headrace.rpc.message import Arrays, Header, decode, encode

if TYPE_CHECKING:
    from tests.protocol.jobs import Job
    from tests.protocol.servers import Server
    from tests.protocol.world import World


class Killed(BaseException):
    """The calling process has died; the function that was at work ends here."""


class Died(BaseException):
    """The called server has died."""


class Network:
    """Every call is bytes. Before and after each, other processes move, so that the caller may be killed meanwhile: then its message is
    never sent, or comes late, or the caller goes on as an orphan whose outputs nobody takes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.late: list[tuple[Server, str, bytes]] = []

    def call(self, job: Job, life: int, server: Server, verb: str, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """The answer. Raises Killed, the server's error, and Unavailable when the server stays away."""
        world, message = self.world, encode(header, arrays)
        for _ in range(4):
            world.interleave()
            if job.life != life:
                self._dead(job, server, verb, message)
            if world.strike(0.5):
                world.say("%s %s to %s comes late", job.name, verb, server.name)
                self.late.append((server, verb, message))
                continue
            try:
                answer = server.answer(verb, message)
            except Died:
                continue
            if world.strike(0.5):
                world.say("%s the answer of %s is lost", job.name, server.name)
                continue
            world.interleave()
            if job.life != life and world.chance.random() < 0.5:
                raise Killed
            return decode(pa.py_buffer(answer))
        raise Unavailable(f"{server.name} is away")

    def _dead(self, job: Job, server: Server, verb: str, message: bytes) -> None:
        fate = self.world.chance.random()
        if fate < 0.5:
            self.world.say("%s goes on as an orphan", job.name)
            self.world.counts["orphans"] += 1
            return
        if fate < 0.8:
            self.late.append((server, verb, message))
        raise Killed

    def deliver_late(self, index: int) -> None:
        """A message of one who waits no more arrives."""
        server, verb, message = self.late.pop(index)
        self.world.counts["late messages"] += 1
        try:
            server.answer(verb, message)
        except (Died, RpcError) as error:
            self.world.say("late %s at %s: %r", verb, server.name, error)


class Link:
    """The way of one life of a job to one server, in the place of rpc.client.Client."""

    def __init__(self, network: Network, job: Job, life: int, server: Server) -> None:
        self._to = (network, job, life, server)

    def call_until(self, _deadline_s: float, verb: str, header: Header, arrays: dict[str, np.ndarray]) -> tuple[Header, Arrays]:
        network, job, life, server = self._to
        return network.call(job, life, server, verb, header, arrays)

    def close(self) -> Any:
        return None
