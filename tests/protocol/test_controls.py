"""Negative controls: with a part of the protocol taken away, the same simulation finds the same worlds wrong."""

import pytest

from tests.protocol.ailments import AILMENTS
from tests.protocol.simulation import simulate
from tests.protocol.wrong import Wrong

SEEDS = range(20)
# The least share of seeds found wrong. What is lost with its acknowledgement is often sent again after a kill of its trainer.
FOUND = {"CausesIgnored": 0.85, "RingNotRestored": 0.8, "AcknowledgedBeforeLog": 0.5, "FrozenFromLiveRows": 0.8}


@pytest.mark.parametrize("name", FOUND)
def test_an_ailment_is_found(name):
    found = 0
    for seed in SEEDS:
        try:
            simulate(seed, AILMENTS[name]())
        except Wrong:
            found += 1
    print(f"{name}: {found} of {len(SEEDS)} seeds found wrong")
    assert found >= FOUND[name] * len(SEEDS)


def test_every_ailment_has_a_floor():
    assert FOUND.keys() == AILMENTS.keys()
