"""Clicks that are being tried: sent as POST /events sends them, then followed until the list that is served has learnt from them."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headrace.engine.console.figures import Learnt
from headrace.engine.console.sampler import Away
from headrace.engine.events import Events
from headrace.engine.recommend import Engine
from headrace.rpc.errors import RpcError

log = logging.getLogger(__name__)
SCENE = "console"
LISTED = 10
KEPT, AT_ONCE = 64, 4
LEARNT_S, SERVED_S, LOOK_S = 30.0, 10.0, 0.05


class TooMany(Exception):
    """As many clicks are being followed as may be: try again in some seconds."""


@dataclass
class Trial:
    """A click on `item` by `user`. Seconds since it was pressed until the broker had it, training had applied it on every shard, and the
    weights that are served had it; None while they have not. `before` and `after`: answers of /recommend."""

    user: str
    item: str
    before: dict[str, Any]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    accepted_s: float | None = None
    learnt_s: float | None = None
    served_s: float | None = None
    after: dict[str, Any] | None = None
    problem: str = ""

    @property
    def done(self) -> bool:
        return bool(self.problem) or self.after is not None


class Trials:
    """The last `KEPT` of them; at most `AT_ONCE` are followed at a time, each from a thread of its own."""

    def __init__(self, engine: Engine, events: Events, trail: Callable[[str, str, int], Learnt]) -> None:
        self._engine, self._events, self._trail = engine, events, trail
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Trial] = OrderedDict()

    def listed(self, user: str) -> dict[str, Any]:
        """What the user would be recommended now; no trace is left. Raises the errors of rpc/errors.py."""
        return self._engine.recommend(user, min(LISTED, self._engine.candidates), SCENE, {}, preview=True)

    def click(self, user: str, item: str) -> Trial:
        """Send an impression of the item and a click on it, and follow them. Raises TooMany, and the errors of rpc/errors.py."""
        began = time.monotonic()
        trial = Trial(user, item, self.listed(user))
        with self._lock:
            if sum(not one.done for one in self._kept.values()) >= AT_ONCE:
                raise TooMany(f"{AT_ONCE} clicks are being followed, as many as at once may be: try again in some seconds")
            self._kept[trial.id] = trial
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        place = next((row["position"] for row in trial.before["items"] if row["item_id"] == item), None)
        since_ms = time.time_ns() // 1_000_000
        try:
            verdicts = self._events.take([
                {"event_id": f"{trial.id}-{action}", "request_id": trial.id, "scene": SCENE, "user_id": user, "item_id": item,
                 "action": action, "position": place} for action in ("impression", "click")])
        except Exception as error:
            trial.problem = str(error)
            raise
        trial.accepted_s = time.monotonic() - began
        refused = next((verdict for verdict in verdicts if not verdict["accepted"]), None)
        if refused is not None:
            trial.problem = f"The event was refused: {refused['reason']}, {refused['detail']}."
        else:
            threading.Thread(target=self._follow, args=(trial, began, since_ms), name="console-trial", daemon=True).start()
        return trial

    def of(self, name: str) -> Trial | None:
        """The trial of that id, None when it is not known (any more)."""
        with self._lock:
            return self._kept.get(name)

    def _follow(self, trial: Trial, began: float, since_ms: int) -> None:
        try:
            if not self._wait(trial, self._trail(trial.user, f"{trial.id}-impression", since_ms)):
                trial.problem = (f"Training has not applied it within {LEARNT_S:.0f} s; `headrace jobs list` shows whether the jobs run,"
                                 f" `headrace trace {trial.id}-impression` where it is.")
                return
            trial.learnt_s = time.monotonic() - began
            before = trial.before.get("weights", {}).get("sequence", -1)
            until = time.monotonic() + SERVED_S
            while True:
                after = self.listed(trial.user)
                if after.get("weights", {}).get("sequence", -1) > before or time.monotonic() > until:
                    break
                time.sleep(LOOK_S)
            trial.served_s = time.monotonic() - began
            trial.after = after
        except (Away, RpcError) as error:
            trial.problem = str(error)
        except Exception:
            log.exception("a click on the page could not be followed")
            trial.problem = "A defect: the engine's log has the cause."

    @staticmethod
    def _wait(trial: Trial, learnt: Learnt) -> bool:
        """Whether it came in time. Who is away for a moment is asked again."""
        until, away = time.monotonic() + LEARNT_S, None
        while time.monotonic() < until:
            try:
                if learnt():
                    return True
                away = None
            except Away as error:
                away = error
            time.sleep(LOOK_S)
        if away is not None:
            raise away
        return False
