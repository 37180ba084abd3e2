"""How a Flight role ends while callers keep their streams open."""

from __future__ import annotations

import threading

from headrace.rpc.owner import Owner
from headrace.rpc.server import Server


def stop_serving(server: Server, owner: Owner, wait_s: float = 2.0) -> None:
    """Take no new streams, wait for open ones at most `wait_s`, then let the owner finish what waits.

    Flight's shutdown waits until every caller has closed its stream, which a kept-open one does not do: it is left on a daemon thread, and
    ends with the process.
    """
    closing = threading.Thread(target=server.shutdown, name="flight-shutdown", daemon=True)
    closing.start()
    closing.join(wait_s)
    owner.stop()
