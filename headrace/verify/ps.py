"""`headrace verify ps`: shards with standbys, replicas and a broker are ended while a trainer, which is ended too, pushes; then every key
is counted against what its causes say, at the owners and once more at their standbys."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from headrace import ports
from headrace.config import Config
from headrace.drain import Stuck
from headrace.own_stack import own_stack
from headrace.ps import kernels
from headrace.ps.index import kernel_input
from headrace.ps.shard import shard_of
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError
from headrace.verify import counts
from headrace.verify.kills import Killer, as_rows, by_process
from headrace.verify.ps_trainer import Made, Position
from headrace.verify.victims import NoVictim, StackVictims, Victim

TRAINER = "trainer"
PARTS = ("kafka", "registry", "ps", "replica")
SHARDS, COPIES = 2, 2
SETTLE_S, STUCK_S = 60.0, 120.0
CHUNK = 1 << 17


class Trainer:
    """The trainer's process, started again when it was ended."""

    def __init__(self, settings: Path, position: Path, seed: int, rate: float, control: str) -> None:
        self._command = [sys.executable, "-m", "headrace.verify.ps_trainer", str(settings), str(position), str(seed), str(rate), control]
        self._log = position.with_name("trainer.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)

    @property
    def pid(self) -> int:
        """0 while it does not run. Raises Stuck when it has ended by itself."""
        if self._process is None:
            return 0
        code = self._process.poll()
        if code is not None and code >= 0:
            raise Stuck(f"the trainer has ended with {code}; {self._log} ends: {self._log.read_text()[-500:]}")
        return 0 if code is not None else self._process.pid

    def end(self) -> None:
        """Let it end what it is at. Raises Stuck."""
        assert self._process is not None, "it was started"
        if self._process.poll() is None and self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.wait(STUCK_S):
            raise Stuck(f"the trainer ended with {self._process.returncode}; {self._log} says why")

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class PsVictims(StackVictims):
    """What the stack runs, and the trainer, which is started again when its end is noticed; with `alone` the trainer only."""

    def __init__(self, data_dir: Path, trainer: Trainer, alone: bool) -> None:
        super().__init__(data_dir)
        self._trainer, self._alone = trainer, alone

    def names(self) -> list[str]:
        return [TRAINER] if self._alone else [*(name for name in super().names() if name != "python-worker"), TRAINER]

    def find(self, name: str, choose: Callable[[list[int]], int]) -> Victim:
        if name != TRAINER:
            return super().find(name, choose)
        pid = self._trainer.pid
        if not pid:
            raise NoVictim("the trainer does not run now")
        return Victim(name, pid, psutil.Process(pid).create_time())

    def is_back(self, victim: Victim) -> bool:
        if victim.name != TRAINER:
            return super().is_back(victim)
        if not self._trainer.pid:
            self._trainer.start()
        return self._trainer.pid not in (0, victim.pid)


def run(data: Path, *, kills: int, seed: int, rate: float, control: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The result as JSON. `data` must be a new folder. Raises NotRecovered, Stuck, and what starting a stack raises."""
    chosen = iter(ports.some_free(4 * SHARDS + 2 * COPIES))

    def free(number: int) -> list[int]:
        return list(itertools.islice(chosen, number))

    def local(number: int) -> list[str]:
        return [f"127.0.0.1:{port}" for port in free(number)]

    settings: dict[str, dict[str, Any]] = {
        "ps": {"addresses": local(SHARDS), "http_ports": free(SHARDS), "standbys": local(SHARDS), "standby_http_ports": free(SHARDS),
               "takeover_s": 1.5, "snapshot_s": 10.0},
        "replica": {"addresses": local(COPIES), "http_ports": free(COPIES)}}
    with own_stack(data, say, settings=settings, parts=PARTS) as config:
        position = Position(data / "position")
        trainer = Trainer(config.stack.data_dir / "run" / "headrace.toml", data / "position", seed, rate, control)
        killer = Killer(PsVictims(config.stack.data_dir, trainer, bool(control)), kills, seed, position.read, position.read, say)
        trainer.start()
        began = time.monotonic()
        try:
            _until(position.read, "nothing was pushed")
            say(f"{SHARDS} shards with standbys, {COPIES} replicas, a trainer at most {rate:.0f} causes/s; {kills} kills, seed {seed}")
            killer.start()
            while not killer.over:
                time.sleep(0.2)
            killer.stop()
            if killer.failed is not None:
                raise killer.failed
            trainer.end()
        finally:
            trainer.kill()
        pushed, seconds = position.read(), time.monotonic() - began
        say(f"{pushed:,} causes pushed in {seconds:.0f} s; counting at the owners, then at their standbys")
        made = Made(seed, 1 + config.model.factors)
        found = _counted(config, made, pushed, "")
        found.append(_served(config))
        _settle(config)
        moved = _have_standbys_own(config)
        found += _counted(config, made, pushed, " at the other member")
        found.append(counts.check("shards whose other member owned them then", moved, SHARDS))
    return {"seed": seed, "control": control, "rows": pushed, "seconds": round(seconds, 1), "kills_planned": kills,
            "kills_done": len(killer.kills), "kills": as_rows(killer.kills), "recovery": by_process(killer.kills), "checks": found,
            "agree": all(one["agree"] for one in found) and len(killer.kills) == kills}


def expected(made: Made, pushed: int) -> tuple[np.ndarray, np.ndarray]:
    """(keys uint64[k] in order, how often int64[k]) of the causes 0 to `pushed`."""
    parts = [made.keys(np.arange(start, min(start + CHUNK, pushed))).reshape(-1) for start in range(0, pushed, CHUNK)]
    keys, number = np.unique(np.concatenate(parts) if parts else np.zeros(0, np.uint64), return_counts=True)
    return keys, number.astype(np.int64)


def _counted(config: Config, made: Made, pushed: int, where: str) -> list[counts.Check]:
    """Causes and every key's count, shard by shard, against what the causes say."""
    keys, number = expected(made, pushed)
    owner = shard_of(kernels.slots_of(kernel_input(keys)), SHARDS)
    found = []
    for shard, address in enumerate(config.ps.reachable):
        client = Client(address)
        held = client.call_until(SETTLE_S, "stats")[0]["models"][config.model.name]["applied"]
        client.close()
        pages = list(counts.exported(config.model.name, "counts", [address]))
        there = np.concatenate([page for page, _ in pages]) if pages else np.zeros(0, np.uint64)
        values = np.concatenate([page.reshape(-1) for _, page in pages]) if pages else np.zeros(0, np.int64)
        order = np.argsort(there)
        mine = owner == shard
        same = np.array_equal(there[order], keys[mine])
        wrong = int((values[order] != number[mine]).sum()) if same else len(set(there.tolist()) ^ set(keys[mine].tolist()))
        found += [counts.check(f"causes applied by shard {shard}{where}", held, pushed),
                  counts.check(f"keys of shard {shard} whose count differs{where}", wrong, 0),
                  counts.check(f"counted by shard {shard}{where}", int(values.sum()), int(number[mine].sum()))]
    return found


def _served(config: Config) -> counts.Check:
    ends = time.monotonic() + SETTLE_S
    while True:
        found = counts.served(config.model.name, config.ps.reachable, config.replica.copies, config.model.weights_dtype)
        if found["agree"] or time.monotonic() > ends:
            return found
        time.sleep(0.5)


def _settle(config: Config) -> None:
    """Wait until each shard's standby has everything."""
    for index, pair in enumerate(zip(config.ps.addresses, config.ps.standbys, strict=True)):
        _until(partial(_together, pair), f"the standby of shard {index} is not in sync")


def _have_standbys_own(config: Config) -> int:
    """Have the other member of each shard own it; of how many that came to be."""
    from headrace.owners_log import KafkaOwnersLog
    from headrace.ps.owners import Owner, Owners

    log, moved = KafkaOwnersLog(config), 0
    for index, pair in enumerate(zip(config.ps.addresses, config.ps.standbys, strict=True)):
        owners = Owners(log, f"{index}/{SHARDS}")
        before = owners.now()
        assert before is not None, "somebody owns it"
        other = f"{index}-standby" if before.member == str(index) else str(index)
        owners.say(Owner(before.epoch + 1, other, False, forced=True))
        _until(partial(_owns, pair, other), f"{other} does not own shard {index}")
        moved += 1
    log.close()
    return moved


def _together(pair: tuple[str, str]) -> bool:
    return any(one.get("owns") and one.get("in_sync") and not one["standby_behind"] for one in map(_stats, pair))


def _owns(pair: tuple[str, str], member: str) -> bool:
    return any(one.get("owns") and one.get("member") == member for one in map(_stats, pair))


def _stats(address: str) -> dict[str, Any]:
    client = Client(address, 5.0)
    try:
        return client.call("stats")[0]
    except RpcError:
        return {}
    finally:
        client.close()


def _until(condition: Callable[[], Any], otherwise: str) -> None:
    ends = time.monotonic() + STUCK_S
    while not condition():
        if time.monotonic() > ends:
            raise Stuck(f"{otherwise} after {STUCK_S:.0f} s")
        time.sleep(0.1)
