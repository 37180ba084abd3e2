"""What callers use: pulls routed by slot, and pushes that are applied once on every shard, whatever dies in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from headrace.ps import kernels
from headrace.ps.index import kernel_input
from headrace.ps.shard import APPLIED, DUPLICATE, RECUT, Tables, shard_of
from headrace.rpc.causes import Causes
from headrace.rpc.client import Client
from headrace.rpc.errors import Refused, Unavailable
from headrace.rpc.freshness import Newest, to_header
from headrace.rpc.message import Arrays, Header

PULL_ROWS = 16384
Compute = Callable[[np.ndarray], Tables]


class Caller(Protocol):
    """What a ParameterClient asks of the way to one shard; rpc.client.Client is one."""

    def call_until(self, deadline_s: float, verb: str, header: Header, arrays: Arrays) -> tuple[Header, Arrays]: ...

    def close(self) -> None: ...


class PushResult(NamedTuple):
    """How many shards applied it, how many had it already (together: all), how often RECUT was answered; the shards' lowest sequence."""

    applied: int
    duplicate: int
    recut: int
    sequence: int


def summed(keys: np.ndarray, grads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct keys uint64[u], grads [u, dim]) of keys uint64[n] that may repeat, the gradients of each summed: what a push takes."""
    distinct, inverse = np.unique(np.asarray(keys, np.uint64), return_inverse=True)
    made = np.zeros((len(distinct), *grads.shape[1:]), grads.dtype)
    np.add.at(made, inverse.reshape(-1), grads)
    return distinct, made


class ParameterClient:
    """A client of all training shards (or of replicas that hold everything: then one address), in the order of their slots.

    While a shard is unavailable, calls are tried again for `timeout_s`: pulls change nothing, and a push is known by its causes. Then
    Unavailable is raised; a push may then stand on some shards and not on others, and pushing the same causes again completes it.
    Calls are safe from several threads. `callers`, one a shard, take the place of connections to `addresses`, and are called in turn.
    """

    def __init__(self, addresses: Sequence[str] = (), timeout_s: float = 30.0, callers: Sequence[Caller] | None = None) -> None:
        self._clients: Sequence[Caller] = [Client(address, timeout_s) for address in addresses] if callers is None else callers
        self._timeout_s = timeout_s
        self._of = threading.local()  # by thread: the shards' sequences that its last pull was of

    def pull(self, model: str, table: str, keys: np.ndarray) -> tuple[np.ndarray, int]:
        """([n, dim] in the order of uint64[n], sequence): every push up to `sequence` is in the values. Raises Refused, Unavailable."""
        values, sequence = self.pull_tables(model, (table,), keys)
        return values[0], sequence

    def pull_tables(self, model: str, tables: Sequence[str], keys: np.ndarray) -> tuple[list[np.ndarray], int]:
        """`pull` of the same keys from several tables, in one call a shard: of each shard they are of one moment."""
        keys = kernel_input(np.asarray(keys, np.uint64))
        calls = [(shard, at[start : start + PULL_ROWS]) for shard, at in self._by_shard(keys) for start in range(0, len(at), PULL_ROWS)]
        if not calls:
            calls = [(0, np.zeros(0, np.int64))]  # the dim is the shard's knowledge
        header = {"model": model, "table": tables[0]} if len(tables) == 1 else {"model": model, "tables": list(tables)}
        names = ["values"] if len(tables) == 1 else [f"{table}.values" for table in tables]
        answers = self._all([(shard, "pull", header, {"keys": keys if len(calls) == 1 else keys[at]}) for shard, at in calls])
        self._note_pull({shard: int(told["sequence"]) for (shard, _), (told, _) in zip(reversed(calls), reversed(answers), strict=True)})
        found = []
        for name in names:
            first = answers[0][1][name]
            if len(calls) == 1:
                found.append(first.copy())  # in the order of the keys already; of Arrow's memory, which nobody may write to
                continue
            values = np.empty((len(keys), first.shape[1]), first.dtype)
            for (_, at), (_, arrays) in zip(calls, answers, strict=True):
                values[at] = arrays[name]
            found.append(values)
        return found, min(header["sequence"] for header, _ in answers)

    def push(self, model: str, effect: str, causes: Causes, compute: Compute, newest: Newest | None = None, *,
             wanted: Sequence[np.ndarray] | None = None) -> PushResult:
        """Push what `compute` gives for the causes, to every shard, each cause once a shard.

        `compute(index int64[k])` -> {table: (distinct keys uint64[u], grads [u, dim])} for the causes at `index`: called for all, and
        again, on this thread, for the rest when a shard has applied some of them. `newest` of the causes tells how fresh the shards are.
        `wanted`: the causes that each shard is sent, int64 indices; all of them by default. Each shard is told which of its pushes this
        thread's last pull had seen, and refuses what is staler than its bound. Raises TooOld, Refused, BadMessage, Stale and Unavailable.
        """
        if wanted is None:
            wanted = [np.arange(len(causes))] * len(self._clients)
        open_index = {shard: index for shard, index in enumerate(wanted) if len(index)}
        if not open_index:
            return PushResult(0, 0, 0, 0)
        known: dict[bytes, list[dict[str, np.ndarray]]] = {}
        done = {APPLIED: 0, DUPLICATE: 0, RECUT: 0}
        sequence: list[int] = []
        while open_index:
            calls = []
            for shard, index in open_index.items():
                if index.tobytes() not in known:
                    known[index.tobytes()] = self._split(compute(index))
                calls.append((shard, "push", {"model": model, "effect": effect, "newest": to_header(newest), **self._pulled(shard)},
                              {**causes.take(index)._asdict(), **known[index.tobytes()][shard]}))
            following = {}
            for (shard, index), (header, arrays) in zip(list(open_index.items()), self._all(calls), strict=True):
                status = header["status"]
                done[status] += 1
                if status == RECUT:
                    following[shard] = index[arrays["applied"] == 0]
                else:
                    sequence.append(header["sequence"])
            open_index = following
        return PushResult(done[APPLIED], done[DUPLICATE], done[RECUT], min(sequence))

    def pull_push(self, model: str, effect: str, causes: Causes, compute: Compute, tables: Sequence[str], keys: np.ndarray,
                  newest: Newest | None = None) -> tuple[PushResult, list[np.ndarray], int]:
        """`push`, and `pull_tables` of uint64[n] as it is behind the push, in one call a shard. Raises what they raise."""
        keys = kernel_input(np.asarray(keys, np.uint64))
        parts: dict[int, np.ndarray] = dict(self._by_shard(keys))
        if not len(causes) or any(len(at) > PULL_ROWS for at in parts.values()):
            return self.push(model, effect, causes, compute, newest), *self.pull_tables(model, tables, keys)
        everything = self._split(compute(np.arange(len(causes))))
        nothing = np.zeros(0, np.int64)
        answers = self._all([(shard, "pull_push", {"model": model, "effect": effect, "newest": to_header(newest), "tables": list(tables),
                                                   **self._pulled(shard)},
                              {**causes._asdict(), **everything[shard], "pull.keys": keys[parts.get(shard, nothing)]})
                             for shard in range(len(self._clients))])
        done = {status: sum(header["status"] == status for header, _ in answers) for status in (APPLIED, DUPLICATE, RECUT)}
        if done[RECUT]:  # what is left goes as a push of its own, and the rows are pulled behind it
            rest = [np.nonzero(arrays["applied"] == 0)[0] if header["status"] == RECUT else nothing for header, arrays in answers]
            more = self.push(model, effect, causes, compute, newest, wanted=rest)
            result = PushResult(done[APPLIED] + more.applied, done[DUPLICATE] + more.duplicate, done[RECUT] + more.recut, more.sequence)
            return result, *self.pull_tables(model, tables, keys)
        self._note_pull({shard: int(answers[shard][0]["sequence"]) for shard in parts})
        found = []
        for table in tables:
            first = answers[0][1][f"{table}.values"]
            values = np.empty((len(keys), first.shape[1]), first.dtype)
            for shard, at in parts.items():
                values[at] = answers[shard][1][f"{table}.values"]
            found.append(values)
        sequence = min(int(header["sequence"]) for header, _ in answers)
        return PushResult(done[APPLIED], done[DUPLICATE], 0, sequence), found, sequence

    def _note_pull(self, sequences: dict[int, int]) -> None:
        self._of.pulled = sequences

    def _pulled(self, shard: int) -> dict[str, int]:
        """What a push to a shard says of the rows that its gradients are of: nothing where this thread has pulled none of that shard."""
        pulled: dict[int, int] = getattr(self._of, "pulled", {})
        return {"pulled": pulled[shard]} if shard in pulled else {}

    def known(self, model: str, effect: str, causes: Causes) -> list[np.ndarray]:
        """Each shard's uint8[n]: rpc.causes.NEW, APPLIED or OLD of every cause, as of now. Raises Refused, BadMessage, Unavailable."""
        header = {"model": model, "effect": effect}
        calls = [(shard, "known", header, causes._asdict()) for shard in range(len(self._clients))]
        return [arrays["status"] for _, arrays in self._all(calls)]

    def held(self, model: str, keys: np.ndarray) -> dict[str, int]:
        """table -> how many of distinct uint64[n] have a row. Raises Refused, Unavailable."""
        return self._rows("held", model, keys)

    def erase(self, model: str, keys: np.ndarray) -> dict[str, int]:
        """Take these rows out of every table of a model; how many went. May be repeated. Raises Refused, Unavailable."""
        return self._rows("erase", model, keys)

    def _rows(self, verb: str, model: str, keys: np.ndarray) -> dict[str, int]:
        found: dict[str, int] = {}
        calls = [(shard, verb, {"model": model}, {"keys": keys[at]}) for shard, at in self._by_shard(kernel_input(keys))]
        for header, _ in self._all(calls):
            found |= {table: found.get(table, 0) + rows for table, rows in header["rows"].items()}
        return found

    def stats(self) -> list[Header]:
        """Each shard's stats, in order. Raises Unavailable."""
        return [header for header, _ in self._all([(shard, "stats", {}, {}) for shard in range(len(self._clients))])]

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _by_shard(self, keys: np.ndarray) -> list[tuple[int, np.ndarray]]:
        if len(self._clients) == 1:
            return [(0, np.arange(len(keys)))] if len(keys) else []
        shard = shard_of(kernels.slots_of(keys), len(self._clients))
        order = np.argsort(shard, kind="stable")
        ends = np.searchsorted(shard[order], np.arange(len(self._clients) + 1))
        parts = [(s, order[ends[s] : ends[s + 1]]) for s in range(len(self._clients))]
        return [(s, at) for s, at in parts if len(at)]

    def _split(self, tables: Tables) -> list[dict[str, np.ndarray]]:
        """By shard: T.keys and T.grads of the rows that it owns; a shard that owns none gets none."""
        split: list[dict[str, np.ndarray]] = [{} for _ in self._clients]
        for name, (keys, grads) in tables.items():
            if len(keys) != len(grads):
                raise Refused(f"table {name}: {len(keys)} keys and {len(grads)} gradients")
            if len(self._clients) == 1:
                split[0] |= {f"{name}.keys": keys, f"{name}.grads": grads} if len(keys) else {}
                continue
            for shard, at in self._by_shard(kernel_input(np.asarray(keys, np.uint64))):
                split[shard] |= {f"{name}.keys": keys[at], f"{name}.grads": grads[at]}
        return split

    def _all(self, calls: Sequence[tuple[int, str, Header, Arrays]]) -> list[tuple[Header, Arrays]]:
        """All answers, in order; the shards work at the same time. Raises the first error, once all have answered."""
        answers: dict[int, Any] = {}
        if len(calls) > 1:
            left = list(range(len(calls)))
            while left:
                together = {calls[i][0]: i for i in reversed(left)}  # the first of each shard
                answers |= self._at_once(calls, [together[shard] for shard in sorted(together)])
                left = [i for i in left if i not in answers]
        again = [i for i in range(len(calls)) if i not in answers or isinstance(answers[i], Unavailable)]
        for i in again:
            answers[i] = _outcome(partial(self._clients[calls[i][0]].call_until, self._timeout_s, *calls[i][1:]))
        for i in range(len(calls)):
            if isinstance(answers[i], Exception):
                raise answers[i]
        return [answers[i] for i in range(len(calls))]

    def _at_once(self, calls: Sequence[tuple[int, str, Header, Arrays]], chosen: list[int]) -> dict[int, Any]:
        """Answers or errors of calls to distinct shards, in their order: all are sent before the first answer is waited for."""
        begun, answers = [], dict[int, Any]()
        ended: BaseException | None = None  # such as Ctrl-C: what has begun is finished first, or its clients would stay locked
        try:
            for i in chosen:
                client, call = self._clients[calls[i][0]], calls[i][1:]
                if not isinstance(client, Client):
                    answers[i] = _outcome(partial(client.call_until, self._timeout_s, *call))
                    continue
                found = _outcome(partial(client.begin, *call))
                if isinstance(found, Exception):
                    answers[i] = found
                else:
                    begun.append((i, found))
        except BaseException as error:
            ended = error
        for i, finish in begun:
            try:
                answers[i] = _outcome(finish)
            except BaseException as error:
                ended = error
        if ended is not None:
            raise ended
        return answers


def _outcome(work: Callable[[], Any]) -> Any:
    """What `work` returns, or the Exception that it raises."""
    try:
        return work()
    except Exception as error:
        return error
