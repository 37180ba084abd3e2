"""`python -m tests.protocol SEED` replays a seed of the simulation and tells every move. `python -m tests.protocol FIRST STOP` runs the
seeds from FIRST to before STOP, and prints what happened in all of them and which were wrong."""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter

from tests.protocol.ailments import AILMENTS, Healthy
from tests.protocol.simulation import simulate
from tests.protocol.wrong import Wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.protocol", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("stop", type=int, nargs="?")
    parser.add_argument("--ailment", choices=sorted(AILMENTS), help="a part of the protocol that is taken away")
    parser.add_argument("--rocks", action="store_true", help="features in RocksDB")
    given = parser.parse_args()
    ailment = AILMENTS[given.ailment] if given.ailment else Healthy
    if given.stop is None:
        print(dict(simulate(given.seed, ailment(), print, given.rocks)))
    else:
        _many(range(given.seed, given.stop), ailment, given.rocks)


def _many(seeds: range, ailment: type[Healthy], rocks: bool) -> None:
    logging.disable(logging.WARNING)  # torn tails are cut by the hundred
    began, counts, wrong = time.process_time(), Counter[str](), dict[int, str]()
    for seed in seeds:
        try:
            counts += simulate(seed, ailment(), rocks=rocks)
        except Wrong as error:
            wrong[seed] = str(error)
    for seed, text in list(wrong.items())[:10]:
        print(f"seed {seed}: {text}")
    print(f"{len(wrong)} of {len(seeds)} seeds wrong; {time.process_time() - began:.0f} s of processor; in the others {dict(counts)}")


if __name__ == "__main__":
    main()
