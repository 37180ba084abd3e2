"""Hashes are contracts: Kafka's own test vectors of murmur2, fixed values of our keys."""

from __future__ import annotations

import pytest

from headrace.schemas.hashing import event_key, feature_key, heartbeat_keys, murmur2, partition_of, source_number


@pytest.mark.parametrize(("data", "signed"), [  # org.apache.kafka.common.utils.UtilsTest
    (b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971), (b"abc", 479470107)])
def test_murmur2_is_kafkas(data, signed):
    assert murmur2(data) == signed & 0xFFFFFFFF


def test_heartbeat_keys_reach_every_partition():
    for partitions in (1, 4, 7):
        assert [partition_of(key, partitions) for key in heartbeat_keys(partitions)] == list(range(partitions))


def test_keys_never_change():
    assert feature_key("user_id", "u1") == 0xC1F39E7121D86FA6
    assert event_key("e") == 0x49EAC513F7718934
    assert source_number("x") == 50598179
