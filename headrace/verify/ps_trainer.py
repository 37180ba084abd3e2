"""The trainer of `headrace verify ps`, a process of its own that may be killed at any moment: pushes what `Made` says of each cause, and
notes how far it is once a push was acknowledged. `python -m headrace.verify.ps_trainer SETTINGS POSITION SEED RATE CONTROL`; ends with
its standard input."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np

from headrace.config import load
from headrace.ps.client import ParameterClient
from headrace.ps.shard import Tables
from headrace.rpc.causes import Causes

KEYS, FEATURES = 20_000, 16
BATCH = (64, 512)
SOURCE = 11
FORGETS, SKIPS = "forgets", "skips"
LATE = 6  # pushes by which the controls' notes are late


class Made:
    """What cause `offset` pushes, from a seed alone: FEATURES keys out of KEYS, each counted once, with a gradient of `dim` floats."""

    def __init__(self, seed: int, dim: int) -> None:
        self._seed, self._dim = np.uint64(seed), dim

    def keys(self, offsets: np.ndarray) -> np.ndarray:
        """uint64[n, FEATURES] of int64[n]; a cause may name a key twice."""
        with np.errstate(over="ignore"):
            mixed = offsets.astype(np.uint64)[:, None] * np.uint64(FEATURES) + np.arange(FEATURES, dtype=np.uint64)
            mixed ^= self._seed << np.uint64(48)
            mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
            mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
            number = (mixed ^ (mixed >> np.uint64(33))) % np.uint64(KEYS)
            return (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)

    def push(self, offsets: np.ndarray) -> Tables:
        keys, inverse, counts = np.unique(self.keys(offsets), return_inverse=True, return_counts=True)
        share = np.zeros(len(keys))
        np.add.at(share, inverse.reshape(-1), np.repeat((offsets % 7 - 3) / 100, FEATURES))
        return {"counts": (keys, counts.astype(np.int64)[:, None]),
                "weights": (keys, np.repeat(share.astype(np.float32)[:, None], self._dim, axis=1))}


class Position:
    """How far training is: a file that is replaced in one step."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> int:
        return int(self._file.read_text()) if self._file.exists() else 0

    def write(self, position: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(position))
        os.replace(fresh, self._file)


def main(settings: str, file: str, seed: str, rate: str, control: str = "") -> None:
    """Push until standard input ends. CONTROL forgets: after a start the same rows come under other causes; skips: it begins
    behind where it stopped."""
    config, position, stop = load(settings, environ={}, stack=False), Position(Path(file)), threading.Event()
    threading.Thread(target=_until_stdin_ends, args=(stop,), daemon=True).start()
    model, chance = config.model, random.Random()
    made = Made(int(seed), 1 + model.factors)
    client = ParameterClient(config.ps.reachable, timeout_s=120.0)
    at = position.read()
    at += BATCH[1] if control == SKIPS and at else 0
    shift = int(time.time() * 1000) << 20 if control == FORGETS else 0
    began, first, late = time.monotonic(), at, list[int]()
    while not stop.is_set():
        size = chance.randint(*BATCH)
        offsets = np.arange(at, at + size)
        causes = Causes(np.full(size, SOURCE, np.int32), np.zeros(size, np.int32), offsets + shift)
        client.push(model.name, config.target_of(model.name), causes, partial(_of, made, offsets))
        at += size
        late.append(at)
        if control != FORGETS or len(late) > LATE:
            position.write(late.pop(0) if control == FORGETS else at)
        time.sleep(max(0.0, began + (at - first) / float(rate) - time.monotonic()))
    position.write(at)
    client.close()


def _until_stdin_ends(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _of(made: Made, offsets: np.ndarray, index: np.ndarray) -> Tables:
    return made.push(offsets[index])


if __name__ == "__main__":
    main(*sys.argv[1:6])
