"""What `headrace data compact` and `expire` do, done by the writer's process itself from time to time."""

from __future__ import annotations

import logging
import threading

from headrace.lake import manifest, rewriting
from headrace.lake.errors import LakeAbsent, LakeAway, LakeHeld, LakeOvertaken
from headrace.lake.store import Store

log = logging.getLogger(__name__)
DAY_MS = 86_400_000


def care(store: Store, keep_days: float) -> rewriting.Rewritten:
    """Leave out hours of event time older than `keep_days` before the newest sample (0: none), then make one file of the small ones of each
    closed hour. Raises as headrace.lake.rewriting.rewrite."""
    held = [file for one in manifest.load(store) for file in one.files]
    if keep_days and held:
        gone = rewriting.expire(store, max(file.ts_ms_max for file in held) - int(keep_days * DAY_MS))
        if gone.rows[0] > gone.rows[1]:
            log.info("%s: %d samples of %d files are older than %g days and gone", store, gone.rows[0] - gone.rows[1],
                     gone.files[0] - gone.files[1], keep_days)
    made = rewriting.compact(store)
    log.info("%s: %d files are %d, %d manifests 1, %d samples as before", store, *made.files, made.manifests[0], made.rows[1])
    return made


def keep_caring(store: Store, every_s: float, keep_days: float, stop: threading.Event) -> None:
    """`care` every so many seconds until `stop` is set. What is in its way is told, and it is tried again then."""
    while not stop.wait(every_s):
        try:
            care(store, keep_days)
        except (LakeHeld, LakeOvertaken, LakeAway, LakeAbsent) as error:
            log.info("the files of %s are made fewer later: %s", store, error)
        except Exception:
            log.exception("making the files of %s fewer failed; again in %.0f s", store, every_s)
