"""`python -m headrace.guard RUN STATE`: ends what a supervisor leaves behind when it is killed.

The kernel ends a dead supervisor's children, not theirs (Flink's Python workers). The guard waits on its standard input, a pipe whose
other end only the supervisor holds: when that ends, by whatever death, it ends all that carries the run's marks, and removes STATE.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from headrace.processes import sweep


def main(run: str, state: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while os.read(0, 1):
        pass
    sweep(run)
    try:
        if json.loads(state.read_text())["run"] == run:  # another supervisor may have written its own by now
            state.unlink()
    except (OSError, ValueError, KeyError):
        pass


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
