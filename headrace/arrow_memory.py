"""Bytes for Arrow's readers, in memory of Arrow's own."""

from __future__ import annotations

import pyarrow as pa


def copied(data: bytes) -> pa.Buffer:
    """A copy of `data`, which no reader's thread needs Python for.

    Arrow's threads let go of what they have read after the caller has its table. Memory of Python is given back under Python's lock, and a
    thread that waits for that while the interpreter ends is ended in the middle of a destructor: the process aborts ("terminate called
    without an active exception", one command in five that reads a Parquet file of 30 columns and exits; Arrow's PyBuffer).
    """
    buffer = pa.allocate_buffer(len(data))
    memoryview(buffer).cast("B")[:] = data
    return buffer
