"""Vectors of one space by inner product: exact, flat, overwritten in place, visible at the next search.

FAISS's flat index keeps its rows in one block of memory; a slot is written through a view of it, so that a new vector of a known id never
leaves the old one searchable. Only the owner of its turn may touch a space: FAISS does not define add beside search.
"""

from __future__ import annotations

from collections.abc import Collection

import faiss
import numpy as np

# One query then costs the same whatever else runs: BLAS would start threads of its own for 20 queries and more.
faiss.cvar.distance_compute_blas_threshold = 1 << 30


class Space:
    """`dim` floats a vector, ids are strings. Of two vectors of an id the higher sequence wins, of equal ones the later call; a delete is
    remembered by its sequence, so that an older vector that comes after it does not bring the id back."""

    def __init__(self, dim: int, capacity: int = 1024) -> None:
        assert dim > 0 and capacity > 0, "a space has a dimension and room for a row"
        self.dim = dim
        self.sequence = -1
        self._index = faiss.IndexFlatIP(dim)
        self._slots: dict[str, int] = {}
        self._ids: list[str] = []
        self._sequences: dict[str, int] = {}  # of live ids and of deleted ones
        self._capacity = 0
        self._view = np.empty((0, dim), np.float32)
        self._reserve(capacity)

    def __len__(self) -> int:  # live ids
        return len(self._ids)

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def upsert(self, name: str, vector: np.ndarray, sequence: int) -> bool:
        """Set the vector float32[dim] of an id; False when a higher sequence of the id was seen before. The caller checked the vector."""
        if not self._newer(name, sequence):
            return False
        slot = self._slots.get(name)
        if slot is None:
            slot = len(self._ids)
            if slot == self._capacity:
                self._reserve(2 * self._capacity)
            self._slots[name] = slot
            self._ids.append(name)
            self._index.ntotal = slot + 1
        self._view[slot] = vector
        return True

    def delete(self, name: str, sequence: int) -> bool:
        """Take an id out; the last row moves into its slot. False when a higher sequence of the id was seen before."""
        if not self._newer(name, sequence):
            return False
        slot = self._slots.pop(name, None)
        if slot is not None:
            last = self._ids.pop()
            if last != name:
                self._view[slot] = self._view[len(self._ids)]
                self._ids[slot] = last
                self._slots[last] = slot
            self._index.ntotal = len(self._ids)
        return True

    def vector(self, name: str) -> np.ndarray | None:
        """A copy of the vector of an id, float32[dim], or None."""
        slot = self._slots.get(name)
        return None if slot is None else self._view[slot].copy()

    def search(self, vectors: np.ndarray, k: int, exclude: Collection[str] = ()) -> tuple[list[list[str]], np.ndarray]:
        """The k best ids of each query float32[q,dim], best first, and their scores float32[q,m]; m is k, or as many ids as there are
        without the excluded ones."""
        without = {name for name in exclude if name in self._slots}
        m = min(k, len(self._ids) - len(without))
        if m <= 0 or not len(vectors):
            return [[] for _ in vectors], np.empty((len(vectors), max(m, 0)), np.float32)
        faiss.omp_set_num_threads(1)  # a setting of the calling thread
        scores, slots = self._index.search(np.ascontiguousarray(vectors, np.float32), m + len(without))
        found = [[self._ids[slot] for slot in row] for row in slots.tolist()]
        if not without:
            return found, scores
        kept = [[i for i, name in enumerate(row) if name not in without][:m] for row in found]
        return ([[row[i] for i in at] for row, at in zip(found, kept, strict=True)],
                np.stack([row[at] for row, at in zip(scores, kept, strict=True)]))

    def _newer(self, name: str, sequence: int) -> bool:
        if sequence < self._sequences.get(name, -1):
            return False
        self._sequences[name] = sequence
        self.sequence = max(self.sequence, sequence)
        return True

    def _reserve(self, capacity: int) -> None:
        live = len(self._ids)
        self._index.ntotal = self._capacity  # FAISS appends after ntotal: the rows beyond the live ones are kept as room
        self._index.add(np.zeros((capacity - self._capacity, self.dim), np.float32))
        self._capacity = capacity
        self._view = faiss.rev_swig_ptr(self._index.get_xb(), capacity * self.dim).reshape(capacity, self.dim)
        self._index.ntotal = live
