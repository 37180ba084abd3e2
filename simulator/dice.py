"""Numbers by chance that depend on what they are for, not on when they are asked for.

A uniform of (seed, purpose, a, b) is a hash of these four. So two policies that show one user one item at one request get the same answer
(common random numbers: the differences between policies lose the noise that they share), in any order and on any machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A stream of its own for a part of the world: another part drawing more does not move it."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def uniform(seed: int, purpose: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64[n] within [0, 1) of int64[n] numbers a and b (splitmix64's finish, 53 bits)."""
    return np.asarray(uniforms(seed, (purpose,), a, b)[0])


def uniforms(seed: int, purposes: Sequence[str], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64[k,n]: `uniform` of k purposes."""
    numbers = np.array([zlib.crc32(purpose.encode()) for purpose in purposes], np.uint64)
    with np.errstate(over="ignore"):
        x = (np.array([seed], np.uint64) * _GOLDEN + numbers)[:, None]
        x = _mixed(_mixed(x + np.asarray(a).astype(np.uint64) * _GOLDEN) + np.asarray(b).astype(np.uint64) * _GOLDEN)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))
