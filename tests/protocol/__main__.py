"""`python -m tests.protocol SEED [AILMENT]` replays a seed of the simulation and tells every move."""

from __future__ import annotations

import argparse

from tests.protocol.ailments import AILMENTS, Healthy
from tests.protocol.simulation import simulate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.protocol")
    parser.add_argument("seed", type=int)
    parser.add_argument("ailment", nargs="?", choices=sorted(AILMENTS), help="a part of the protocol that is taken away")
    parser.add_argument("--rocks", action="store_true", help="features in RocksDB")
    given = parser.parse_args()
    ailment = AILMENTS[given.ailment]() if given.ailment else Healthy()
    print(dict(simulate(given.seed, ailment, print, given.rocks)))


if __name__ == "__main__":
    main()
