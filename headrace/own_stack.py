"""A stack for one command: on a thread of this process and gone when the command ends, or detached when it is to stay."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace import config as configuration
from headrace import stack, state
from headrace.children import PARTS
from headrace.config import Config

UNJUDGED: dict[str, dict[str, Any]] = {"samples": {"noise": {}}, "features": {"idle_s": 0.0}}
"""Settings of a stack whose samples and features are compared with a file's rows, one by one: no rule against noise stands between, and
nobody is forgotten."""


@contextmanager
def own_stack(data: Path, say: Callable[[str], None], keep: bool = False,
              settings: dict[str, dict[str, Any]] | None = None, parts: tuple[str, ...] = PARTS) -> Iterator[Config]:
    """The configuration of a stack that is ready on the data folder `data`, with the addresses that it really took.

    `parts` as of `headrace up --only`. `settings` by section and key override the configuration. With `keep` it stays up afterwards, else
    it is stopped. Raises what headrace.stack.up raises.
    """
    body = configuration.load(stack=False).model_dump()
    for section, values in {**(settings or {}), "stack": {**(settings or {}).get("stack", {}), "data_dir": data}}.items():
        body[section].update(values)
    wanted = Config(**body)
    if keep:
        from headrace.detach import up_detached

        up_detached(wanted, None, ",".join(parts), say)
        yield running(wanted)
        return
    stop, failed = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            stack.up(wanted, say, parts, stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="stack")
    thread.start()
    try:
        while not failed and (state.read(data) or {}).get("state") != "ready":
            time.sleep(0.1)
        if failed:
            raise failed[0]
        yield running(wanted)
    finally:
        stop.set()
        thread.join()


def running(config: Config) -> Config:
    """`config` with the addresses that the running stack really took."""
    found = state.read(config.stack.data_dir) or {}
    body = config.model_dump()
    for section, values in found.get("config", {}).items():
        body[section].update(values)
    return Config(**body)
