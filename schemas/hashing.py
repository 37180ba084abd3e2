"""Stable 64-bit hashes: of a field's value (a feature key), of an id (a row key), of a topic's uuid (a source number)."""

from __future__ import annotations

import xxhash


def feature_key(field: str, value: str) -> int:
    """uint64 key of a categorical value: xxh64 of "field=value". A user's row key is feature_key("user_id", id), an item's likewise."""
    return xxhash.xxh64_intdigest(f"{field}={value}".encode())


def event_key(event_id: str) -> int:
    """uint64 of an event_id, for the retry window in a user's row."""
    return xxhash.xxh64_intdigest(event_id.encode())


def source_number(name: str) -> int:
    """31-bit number of a topic's uuid or a backfill file's digest: the `source` of a cause. Stateless, so that every process agrees."""
    return xxhash.xxh64_intdigest(name.encode()) & 0x7FFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's partitioner hash (murmur2, seed 0x9747b28c), as the Java client and librdkafka's murmur2 compute it."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives to `key`."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def heartbeat_keys(partitions: int) -> list[bytes]:
    """One key for each partition, found by trying: a heartbeat under it reaches just that partition, of any topic with as many."""
    found: dict[int, bytes] = {}
    n = 0
    while len(found) < partitions:
        key = f"heartbeat-{n}".encode()
        found.setdefault(partition_of(key, partitions), key)
        n += 1
    return [found[p] for p in range(partitions)]
