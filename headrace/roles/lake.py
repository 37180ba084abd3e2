"""The lake role: the topic `samples` into the sample library, with health and figures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector

from headrace.config import Config
from headrace.lake.care import keep_caring
from headrace.lake.errors import LakeAhead, LakeAway, LakeDamaged, LakeHeld, LakeOvertaken
from headrace.lake.figures import Figures
from headrace.lake.follow import When, follow
from headrace.lake.manifest import Manifest
from headrace.lake.rewriting import fold
from headrace.lake.source import Source
from headrace.lake.store import Store, at
from headrace.lake.writer import Writer
from headrace.roles.ps import now_ms
from headrace.rpc.health import Health

log = logging.getLogger(__name__)
RETRY_S = 1.0
LASTING_S = 10.0  # what a person has to mend is not tried again as fast
STOP_S = 8.0
MANIFESTS_MAX = 1000  # commits after which all manifests are made one, so that a start reads no more
OBJECTS_MAX = 100  # the same where each one is a request


def start(config: Config, index: int, source: Source) -> Callable[[], None]:
    """Write until what it returns is called; health and figures at config.lake.http_port. There is one writer; `index` is 0.

    Ready once it reads the topic. What fails is told, and a second later a new writer begins where the last commit ended. Raises LakeHeld,
    but of an object store, where the writer that came last stays, the earlier one stops, and says so until it is ended.
    """
    assert index == 0, "a lake has one writer"
    store, stop, trouble = at(config.lake_place), threading.Event(), ["it begins"]
    held = ExitStack()
    if store.locks:
        held.enter_context(store.held())
    registry, figures = CollectorRegistry(), Figures(source, now_ms)
    registry.register(figures)  # type: ignore[arg-type]
    ProcessCollector(registry=registry)

    def write() -> None:
        claimed = store.locks
        while not stop.is_set():
            try:
                if not claimed:
                    held.enter_context(store.held())
                    claimed = True
                _write(config, store, source, stop, figures, trouble)
            except LakeOvertaken as error:
                log.warning("%s", error)
            except LakeHeld as error:
                trouble[0] = str(error)
                log.error("%s", error)
                return
            except LakeAway as error:
                trouble[0] = str(error)
                log.error("%s", error)
                stop.wait(RETRY_S)
            except (LakeDamaged, LakeAhead) as error:
                trouble[0] = str(error)
                log.error("%s", error)
                stop.wait(LASTING_S)
            except Exception as error:
                trouble[0] = str(error)
                log.exception("writing %s failed; again in a second from its last commit", store)
                stop.wait(RETRY_S)

    thread = threading.Thread(target=write, name="lake", daemon=True)
    thread.start()
    caring = config.lake.care_s > 0
    tending = threading.Thread(target=keep_caring, args=(store, config.lake.care_s, config.lake.keep_days, stop), name="care", daemon=True)
    if caring:
        tending.start()
    health = Health(config.lake.http_port, lambda: trouble[0], registry)

    def close() -> None:
        stop.set()
        thread.join(STOP_S)
        if caring:
            tending.join(STOP_S)
        health.close()
        held.close()

    return close


def _write(config: Config, store: Store, source: Source, stop: threading.Event, figures: Figures, trouble: list[str]) -> None:
    writer = Writer(store, source.topic(), source.marks(), source.marks, ring_length=config.lake.ring_length, now_ms=now_ms)
    figures.writer, trouble[0] = writer, ""
    log.info("%s goes on after commit %d, at %s", store, writer.totals.commits, writer.positions)
    lake = config.lake
    follow(writer, source, stop, When(lake.commit_s, lake.rows_max, lake.bytes_max), time.monotonic, partial(_tell, store))


def _tell(store: Store, made: Manifest) -> None:
    log.info("commit %d: %d rows in %d files, %d duplicates, %d unreadable", made.number, made.rows, len(made.files), made.duplicates,
             made.unreadable)
    if made.number % (MANIFESTS_MAX if store.locks else OBJECTS_MAX) == 0:
        try:
            fold(store)
        except (LakeHeld, LakeAway):
            log.info("the manifests of %s are made one later: it is being rewritten", store)

