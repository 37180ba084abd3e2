"""Walks a datum by its writer schema before a decoder sees it: every length, index, count and number is checked, nothing is built.

`walker(schema)` writes one Python function for a schema: straight-line code, because a closure a field costs twice as much. No text of the
schema enters the code, only its structure. Guards the decoder lacks (fastavro 1.13): negative union and enum indexes, out-of-range int and
long, padded varints, NaN and infinity, booleans other than 0 and 1, map keys that come twice, blocks whose size lies, trailing bytes; and
of schemas: recursion, depth, items of zero bytes (a count of two billion would cost no input). So whatever passes has one reading, and but
for the blocks that an Avro writer may cut arrays and maps into, it is the only datum with that reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.schemas.errors import Malformed

DEPTH_MAX = 32
NODES_MAX = 4096
SIZE_MAX = 1 << 20
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
Walker = Callable[[bytes, int], None]


def walker(schema: Any) -> Walker:
    """A function (data, start) -> None that raises Malformed unless data[start:] is exactly one datum of the parsed `schema`.

    Raises Malformed("bad_schema") for a writer schema that is recursive, deeper than 32, larger than 4,096 nodes or has items of no bytes.
    """
    emitter = _Emitter()
    body = emitter.lines(schema, 0, ())
    source = ["def walk(d, i):", " try:", *("  " + line for line in body or ["pass"]), " except IndexError:",
              "  raise Malformed('truncated', f'the datum ends within a field, at byte {len(d)}') from None",
              " end(d, i)"]
    scope: dict[str, Any] = {"Malformed": Malformed, "long": _long, "size": _size, "end": _end, "refuse": _refuse, "blocks": _blocks}
    exec(compile("\n".join(emitter.functions + source), "<walker>", "exec"), scope)
    return scope["walk"]


class _Emitter:
    def __init__(self) -> None:
        self.functions: list[str] = []
        self._named: dict[str, Any] = {}
        self._nodes = 0

    def lines(self, schema: Any, depth: int, within: tuple[str, ...]) -> list[str]:
        """Code that moves i past one datum of `schema`."""
        self._nodes += 1
        if depth > DEPTH_MAX or self._nodes > NODES_MAX:
            raise Malformed("bad_schema", f"the writer schema is deeper than {DEPTH_MAX} or larger than {NODES_MAX} nodes")
        if isinstance(schema, list):
            return self._union(schema, depth, within)
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, (dict, list)):
            return self.lines(kind, depth + 1, within)
        if kind in PRIMITIVES:
            return _primitive(kind)
        if isinstance(schema, str):
            if schema in within:
                raise Malformed("bad_schema", f"the writer schema is recursive in {schema}")
            if schema not in self._named:
                raise Malformed("bad_schema", f"the writer schema has no type {schema}")
            return self.lines(self._named[schema], depth, within)
        return self._named_or_nested(kind, schema, depth, within)

    def _named_or_nested(self, kind: str, schema: dict[str, Any], depth: int, within: tuple[str, ...]) -> list[str]:
        if kind in ("record", "error"):
            self._named[schema["name"]] = schema
            inner = (*within, schema["name"])
            return [line for field in schema["fields"] for line in self.lines(field["type"], depth + 1, inner)]
        if kind == "enum":
            self._named[schema["name"]] = schema
            return [*_LONG, f"if not 0 <= n < {len(schema['symbols'])}: refuse('bad_enum_index', n, i)"]
        if kind == "fixed":
            self._named[schema["name"]] = schema
            if not 0 <= schema["size"] <= SIZE_MAX:
                raise Malformed("bad_schema", f"the writer schema has a fixed of {schema['size']} bytes")
            return [f"i += {int(schema['size'])}"]
        if kind == "array":
            return self._items(schema["items"], [], depth, within)
        if kind == "map":
            return self._items(schema["values"], _MAP_KEY, depth, within)
        raise Malformed("bad_schema", f"the writer schema has a type {kind!r}")

    def _union(self, branches: list[Any], depth: int, within: tuple[str, ...]) -> list[str]:
        lines = [*_LONG]
        for index, branch in enumerate(branches):
            body = self.lines(branch, depth + 1, within)
            lines += [f"{'el' if index else ''}if n == {index}:", *(" " + line for line in body or ["pass"])]
        return [*lines, "else: refuse('bad_union_index', n, i)"]

    def _items(self, item: Any, before: list[str], depth: int, within: tuple[str, ...]) -> list[str]:
        body = [*before, *self.lines(item, depth + 1, within)]
        if not before and _bytes_min(item, self._named) == 0:
            raise Malformed("bad_schema", "the writer schema has an array whose items take no bytes")
        name = f"items_{len(self.functions)}"
        self.functions += [f"def {name}(d, i, count, keys):", " for _ in range(count):", *("  " + line for line in body), " return i"]
        return ["keys = set()" if before else "keys = None", "while True:", " n = d[i]; i += 1; end_of = -1",
                " if n & 129: n, i, end_of = blocks(d, i)", " else: n >>= 1", " if n == 0: break",
                " if n > len(d) - i: refuse('bad_block_count', n, i)", f" i = {name}(d, i, n, keys)",
                " if end_of >= 0 and i != end_of: refuse('bad_block_count', f'items to {i} in a block to {end_of},', i)"]


_LONG = ["n = d[i]; i += 1", "if n & 129: n, i = long(d, i)", "else: n >>= 1"]


def _primitive(kind: str) -> list[str]:
    if kind == "null":
        return []
    if kind == "boolean":
        return ["if d[i] > 1: refuse('bad_boolean', d[i], i)", "i += 1"]
    if kind == "int":
        return [*_LONG, "if not -2147483648 <= n <= 2147483647: refuse('out_of_range', n, i)"]
    if kind == "long":
        return ["if d[i] < 128: i += 1", "else: n, i = long(d, i + 1)"]
    if kind == "float":
        return ["if d[i + 3] & 127 == 127 and d[i + 2] & 128: refuse('not_finite', 'a float', i)", "i += 4"]
    if kind == "double":
        return ["if d[i + 7] & 127 == 127 and d[i + 6] & 240 == 240: refuse('not_finite', 'a double', i)", "i += 8"]
    return ["n = d[i]; i += 1", "if n & 129: i += size(d, i)", "else: i += n >> 1"]  # bytes, string


# Lengths are minimal varints, so two keys are equal when their bytes with the length are.
_MAP_KEY = ["start = i", *_primitive("string"), "if d[start:i] in keys: refuse('duplicate_key', d[start + 1:i][:40], start)",
            "keys.add(d[start:i])"]


def _bytes_min(schema: Any, named: dict[str, Any]) -> int:
    """0 when a datum of `schema` may take no bytes, else 1."""
    if isinstance(schema, list):
        return 1
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, (dict, list)):
        return _bytes_min(kind, named)
    if kind == "null":
        return 0
    if isinstance(schema, str):
        return _bytes_min(named[schema], named) if schema in named else 1
    if kind in ("record", "error"):
        return max((_bytes_min(field["type"], named) for field in schema["fields"]), default=0)
    return min(1, int(schema["size"])) if kind == "fixed" else 1


def _long(d: bytes, i: int) -> tuple[int, int]:
    """The zigzag varint whose first byte is d[i - 1], and the index behind it."""
    i -= 1
    n = shift = 0
    while True:
        byte = d[i]
        i += 1
        n |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise Malformed("bad_varint", f"a number of more than 10 bytes, at byte {i}")
    if byte == 0 and shift:
        raise Malformed("bad_varint", f"a number padded with zeros to {shift // 7 + 1} bytes, at byte {i}")
    if n >> 64:
        raise Malformed("out_of_range", f"a number beyond 64 bits, at byte {i}")
    return (n >> 1) ^ -(n & 1), i


def _size(d: bytes, i: int) -> int:
    """Bytes from i to the end of a string whose length starts at d[i - 1]."""
    n, end = _long(d, i)
    if n < 0:
        raise Malformed("bad_length", f"a string or bytes of length {n}, at byte {i}")
    if n > len(d) - end:
        raise Malformed("truncated", f"a string or bytes of length {n} where {len(d) - end} bytes are left, at byte {i}")
    return n + end - i


def _blocks(d: bytes, i: int) -> tuple[int, int, int]:
    """(items of a block whose count starts at d[i - 1], the index behind it, where the block ends or -1): a negative count is followed by
    the block's size in bytes, for readers that skip."""
    n, i = _long(d, i)
    if n >= 0:
        return n, i, -1
    size, i = _long(d, i + 1)
    if size < 0 or size > len(d) - i:
        raise Malformed("bad_block_count", f"a block of {size} bytes where {len(d) - i} are left, at byte {i}")
    return -n, i, i + size


def _end(d: bytes, i: int) -> None:
    if i > len(d):
        raise Malformed("truncated", f"the datum is {i - len(d)} bytes short")
    if i < len(d):
        raise Malformed("trailing_bytes", f"{len(d) - i} bytes after the datum")


def _refuse(reason: str, got: object, i: int) -> None:
    raise Malformed(reason, f"{got} at byte {i}")
