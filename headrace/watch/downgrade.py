"""The guard: when serving steps back from the live model to a published version, from that to an older one, and when it returns.

No input and output: it is given scores and the time, and says what is to be done, so that it can be simulated. After Weibo's "domino
downgrade" (WeiPS). All versions are scored in shadow on the samples that are scored at all (windows.py), so that a step is made to a
version that is known to be better, and not to one that might be.

**Two kinds of trouble.** *Model*: log-loss against the window's base rate has risen, or predicted and true positives disagree. Then labels
are believed, and the newest good version that is better than live on the same samples is served; none, when none is: what has changed is
the world, or the features, and live is the best there is. *Labels*: the base rate has left its bounds, and a version that does not learn no
longer agrees with it. Then labels are not believed: by them, a model that has learnt them would soon be the best. The newest version from
before the trouble is served, nothing is judged by labels until the base rate has come back, and a person who knows that the world has
changed says so (`headrace models resume` takes what is there for normal).

**Domino.** A served version that is worse than an older good one for `patience` intervals gives way to it. When no other is better it
stays: one that is known to be the best there is beats a list by popularity, of which nobody knows how good it is.

**Inputs.** A slot of the model that has lost its values (inputs.py) is an alarm that names it. No version is better for that, so serving
does not move; nothing is published and nothing proves good until they are back.

**Back.** Live returns when its shadow has been better than the served version for `return_after` intervals in turn, labels believed. One
change an interval at most, and from a step back to a return at least `return_after`: it cannot flap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from headrace.watch.inputs import Inputs
from headrace.watch.windows import CLIP, Window, Windows

LIVE = 0
LABELS, MODEL, INPUTS, NONE = "labels", "model", "inputs", ""
ERRORS = 3.0  # standard errors that a difference must have, to act upon it
ERRORS_BACK = 1.0  # and live's, interval after interval: of two that are equal live is to be served


@dataclass(frozen=True)
class Bounds:
    """Section [versions] of the configuration, which explains each."""

    every_s: float = 3600.0
    keep: int = 6
    interval_s: float = 30.0
    window_s: float = 300.0
    samples_min: int = 2000
    patience: int = 3
    return_after: int = 10
    entropy_rise: float = 0.05
    calibration: float = 1.5
    base_rate_shift: float = 0.4
    better: float = 0.01
    memory_s: float = 21600.0


class Step(NamedTuple):
    """What is to be done or told: serve, publish, good, doubtful, alarm, calm, stuck; `version` where it is of one."""

    kind: str
    version: int
    reason: str
    figures: dict[str, Any]


@dataclass
class Known:
    """A version: since when it has been without trouble, whether it has proved good, or (False) cannot any more."""

    created_s: float
    clean_s: float
    good: bool | None = None


class Guard:
    """`add` scores, `tick` every `interval_s`. `detectors` by name say True for a drift at a loss of live. `slots`: names of the model's
    inputs and their keys uint64[F] without a value, for `see` to be told of. One thread calls it."""

    def __init__(self, bounds: Bounds, detectors: Mapping[str, Callable[[float], bool]],
                 slots: tuple[Sequence[str], np.ndarray] = ((), np.zeros(0, np.uint64))) -> None:
        self.bounds, self._detectors = bounds, dict(detectors)
        self.inputs = Inputs(*slots, least=max(1, round(bounds.window_s / bounds.interval_s)), samples_min=bounds.samples_min,
                             patience=bounds.patience, memory=bounds.memory_s / bounds.interval_s)
        self._windows = Windows(bounds.interval_s, bounds.window_s, bounds.samples_min)
        self.known: dict[int, Known] = {}
        self.found = dict.fromkeys(self._detectors, 0)
        self.window: Window | None = None
        self.trouble, self._alarmed, self._stuck = NONE, NONE, False
        self._for = {LABELS: 0, MODEL: 0}
        self._calm = self._better = self._drift = 0
        self._serving = LIVE
        self._ahead: dict[int, int] = {}  # intervals in turn that a good version has beaten the one that is served
        self._published_s = 0.0
        self.log_odds: float | None = None
        self.entropy: float | None = None
        self._turns = 0

    def add(self, label: np.ndarray, by_version: Mapping[int, np.ndarray]) -> None:
        """Labels float[n] and probabilities float[n] by version, 0 (live) among them, of the same samples."""
        self._windows.add(label, by_version)
        p = np.clip(by_version[LIVE].astype(np.float64), CLIP, 1 - CLIP)
        for loss in (-np.where(label > 0.5, np.log(p), np.log1p(-p))).tolist():
            for name, update in self._detectors.items():
                if update(loss):
                    self.found[name] += 1
                    self._drift = self._windows.least + 1

    def see(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Inputs of exposures, scored or not: keys uint64[n,F], values float32[n,F]."""
        self.inputs.add(keys, values)

    def relearn(self) -> None:
        """A person says that what is seen is normal: references begin anew."""
        self.inputs.relearn()
        self.log_odds = self.entropy = None
        self._turns = 0
        self._quiet()

    def tick(self, now_s: float, serving: int, pinned: bool, there: Mapping[int, float]) -> list[Step]:
        """An interval is over. `serving` is what is served, `there` the versions that exist, and when they were made. At most one Step of
        kind serve; it is not taken for done: what is served is told at the next tick."""
        self._meet(now_s, there)
        told = self._inputs(now_s)
        if serving != self._serving:
            self._serving, self._better, self._ahead = serving, 0, {}
        self._drift = max(0, self._drift - 1)
        window = self.window = self._windows.turn()
        if window is None or not window.has(LIVE):
            return told
        self.trouble, why = self._judge(window, serving)
        steps = told + self._count(now_s, window, why)
        if self.trouble == NONE:
            self._remember(window)
            steps += self._prove(now_s, window)
        self._ahead = {number: self._ahead.get(number, 0) + 1 for number in self._good()
                       if number != serving and not self._for[LABELS] and self._beats(window, number, serving)}
        if not pinned:
            steps += self._down(window) if serving == LIVE else self._aside(window, serving)
        else:
            self._better = 0
        moved = any(step.kind == "serve" for step in steps)
        if serving == LIVE and not moved and self._may_publish(now_s, window):
            self._published_s = now_s
            steps.append(Step("publish", LIVE, "live has been within its bounds", window.figures()))
        return steps

    def _inputs(self, now_s: float) -> list[Step]:
        """Slots that have lost their values, or have them again."""
        gaps, back = self.inputs.turn()
        if self.inputs.gaps:
            for one in self.known.values():
                one.clean_s = now_s
        steps = [Step("calm", LIVE, f"{INPUTS}: {slot} has values again", {}) for slot in back]
        return steps + [Step("alarm", LIVE, f"{INPUTS}: {gap}", {"share": gap.share, "before": gap.before}) for gap in gaps]

    def _meet(self, now_s: float, there: Mapping[int, float]) -> None:
        for number, created_s in there.items():
            self.known.setdefault(number, Known(created_s, now_s))
            self._published_s = max(self._published_s, created_s)
        for number in set(self.known) - set(there):
            del self.known[number]

    def _judge(self, window: Window, serving: int) -> tuple[str, str]:
        """(which trouble, a sentence)."""
        bounds, entropy, calibration = self.bounds, window.entropy(LIVE), window.calibration(LIVE)
        if self.log_odds is None or self.entropy is None:
            return NONE, ""
        shift, frozen = window.log_odds - self.log_odds, self._frozen(window, serving)
        agrees = 1 + (bounds.calibration - 1) / 2  # half as far as live may be off, for two things must be out of bounds at once
        if abs(shift) > bounds.base_rate_shift and frozen is not None and _off(window.calibration(frozen), agrees):
            return LABELS, (f"the share of positives is {window.base_rate:.3f}, {shift:+.2f} in log-odds from what it was, and version"
                            f" {frozen}, which does not learn, predicts {window.calibration(frozen):.2f} of it")
        rise = entropy - self.entropy
        if rise > bounds.entropy_rise and rise > ERRORS * window.entropy_error(LIVE):
            return MODEL, f"live's log-loss is {entropy:.3f} of the base rate's, {rise:+.3f} from what it was"
        if _off(calibration, bounds.calibration):
            return MODEL, f"live predicts {calibration:.2f} of the positives that there are"
        return NONE, ""

    def _frozen(self, window: Window, serving: int) -> int | None:
        """A version that does not learn, from before the trouble, by which labels can be told from the model."""
        if serving != LIVE and window.has(serving):
            return serving
        return next((number for number in self._good() if window.has(number)), None)

    def _count(self, now_s: float, window: Window, why: str) -> list[Step]:
        """How long there has been trouble; alarm and calm, once each."""
        if self.trouble == NONE:
            self._quiet()
            self._calm += 1
            if self._alarmed and self._calm >= self.bounds.patience:
                told, self._alarmed = self._alarmed, NONE
                return [Step("calm", LIVE, f"{told}: within bounds again", window.figures())]
            return []
        self._calm = 0
        self._for[self.trouble] += 1  # the other is kept: a shift near its bound may look like either from one interval to the next
        for one in self.known.values():
            one.clean_s = now_s
        if self._for[self.trouble] < self._patience() or self._alarmed == self.trouble:
            return []
        self._alarmed, self._stuck = self.trouble, False
        steps = [Step("alarm", LIVE, f"{self.trouble}: {why}", window.figures() | {f"found.{name}": n for name, n in self.found.items()})]
        for number, one in self.known.items():
            if one.good is None:
                one.good = False
                steps.append(Step("doubtful", number, "there was trouble before it had proved good", {}))
        return steps

    def _patience(self) -> int:
        """Half as long when a detector has found a drift of live's loss within the window."""
        return max(1, (self.bounds.patience + 1) // 2) if self._drift else self.bounds.patience

    def _quiet(self) -> None:
        self._for = {LABELS: 0, MODEL: 0}

    def _remember(self, window: Window) -> None:
        """Move the references towards what is seen, fast at first."""
        self._turns += 1
        share = max(1 / self._turns, 1 - 0.5 ** (self.bounds.interval_s / self.bounds.memory_s))
        self.log_odds = window.log_odds if self.log_odds is None else self.log_odds + share * (window.log_odds - self.log_odds)
        entropy = window.entropy(LIVE)
        self.entropy = entropy if self.entropy is None else self.entropy + share * (entropy - self.entropy)

    def _prove(self, now_s: float, window: Window) -> list[Step]:
        """Versions that were without trouble for a whole window, and are no worse themselves, have proved good."""
        steps = []
        assert self.entropy is not None, "remembered just before"
        for number, one in self.known.items():
            proved = one.good is None and now_s - one.clean_s >= self.bounds.window_s and window.has(number)
            if proved and window.entropy(number) <= min(1.0, self.entropy + self.bounds.entropy_rise):
                one.good = True
                steps.append(Step("good", number, "a whole window without trouble after it was made", window.figures()))
        return steps

    def _good(self) -> list[int]:
        """Newest first."""
        return sorted((number for number, one in self.known.items() if one.good), key=lambda n: (self.known[n].created_s, n), reverse=True)

    def _down(self, window: Window) -> list[Step]:
        """Live is served: step back, or say that there is nothing to step back to."""
        if self._for[LABELS] >= self._patience():
            good = self._good()  # whose whole window without trouble lies before the one that shows it
            if good:
                return [self._serve(good[0], "labels are not believed: the newest good version from before", window)]
        elif self.trouble == MODEL and self._for[LABELS] == 0 and self._for[MODEL] >= self._patience():
            for number in self._good():
                if self._ahead.get(number, 0) >= self.bounds.patience:
                    gain = window.better(number, LIVE)[0]
                    return [self._serve(number, f"live is out of its bounds, and this one has {gain:.1%} less log-loss on the same samples",
                                        window)]
        else:
            return []
        if self._stuck:
            return []
        self._stuck = True
        return [Step("stuck", LIVE, f"{self.trouble}: no good version is better, so live stays", window.figures())]

    def _aside(self, window: Window, serving: int) -> list[Step]:
        """A version is served: an older one instead, or live again."""
        if self._for[LABELS] or not window.has(serving):
            self._better = 0
            return []
        gain, errors = window.better(LIVE, serving)
        self._better = self._better + 1 if gain > 0 and errors >= ERRORS_BACK else 0
        if self._better >= self.bounds.return_after:
            return [self._serve(LIVE, f"live's shadow has had less log-loss for {self._better} intervals, now by {gain:.1%}", window)]
        for number in self._good():
            if self._older(number, serving) and (ahead := self._ahead.get(number, 0)) >= self.bounds.patience:
                return [self._serve(number, f"version {serving} is worse than this one too, for {ahead} intervals", window)]
        return []

    def _older(self, number: int, than: int) -> bool:
        return than not in self.known or (self.known[number].created_s, number) < (self.known[than].created_s, than)

    def _beats(self, window: Window, number: int, other: int) -> bool:
        if not (window.has(number) and window.has(other)):
            return False
        gain, errors = window.better(number, other)
        return gain >= self.bounds.better and errors >= ERRORS

    def _serve(self, number: int, reason: str, window: Window) -> Step:
        return Step("serve", number, reason, window.figures())

    def _may_publish(self, now_s: float, window: Window) -> bool:
        quiet = self.trouble == NONE and not self._alarmed and not self.inputs.gaps
        return (quiet and self._calm >= self.bounds.patience and window.entropy(LIVE) < 1
                and now_s - self._published_s >= self.bounds.every_s)

    def state(self) -> dict[str, Any]:
        """What the next process of this guard begins with, as JSON."""
        return {"log_odds": self.log_odds, "entropy": self.entropy, "turns": self._turns, "inputs": self.inputs.state(),
                "good": {str(number): one.good for number, one in self.known.items() if one.good is not None}}

    def restore(self, state: Mapping[str, Any], now_s: float, there: Mapping[int, float]) -> None:
        """Begin with what `state` gave."""
        self.log_odds, self.entropy, self._turns = state["log_odds"], state["entropy"], state["turns"]
        if "inputs" in state:  # what was before this version of the guard has none
            self.inputs.restore(state["inputs"])
        self._meet(now_s, there)
        for number, good in state["good"].items():
            if int(number) in self.known:
                self.known[int(number)].good = good


def crowded(created_s: Mapping[int, float], keep: int, now_s: float, needed: frozenset[int] = frozenset()) -> list[int]:
    """Versions to drop so that `keep` are left: never one of `needed`, the newest or the oldest, and those first whose neighbours in age
    lie closest for that age: what is left reaches back far and is dense where it is new."""
    left = sorted(created_s, key=lambda number: created_s[number])
    gone = []
    while len(left) > max(2, keep):
        inner = [i for i in range(1, len(left) - 1) if left[i] not in needed]
        if not inner:
            break
        at = min(inner, key=lambda i: (created_s[left[i + 1]] - created_s[left[i - 1]]) / (now_s - created_s[left[i]] + 1.0))
        gone.append(left.pop(at))
    return gone


def _off(calibration: float, most: float) -> bool:
    return not 1 / most <= calibration <= most
