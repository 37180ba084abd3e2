"""Section [samples] of the configuration: how exposures and actions become samples, of which targets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from headrace.connections import Section
from headrace.schemas.targets import CLICK, QUIET, Target, named
from headrace.schemas.targets import Noise as Rules

WINDOW_MS_MAX = 90 * 86_400_000


class Also(Section):
    """A further target of every exposure: an action with a window of its own."""

    action: str = Field("click", description="Action that is learnt.")
    at_least: float | None = Field(None, allow_inf_nan=False, description="The action counts from this value on, as seconds of dwell.")
    window_ms: int = Field(1000, ge=1, le=WINDOW_MS_MAX, description="The action labels an exposure at most this much earlier.")


class Noise(Section):
    """Rules against noise, each off at 0 (docs/samples.md)."""

    repeated_exposure_ms: int = Field(0, ge=0, le=WINDOW_MS_MAX, description="An exposure at most this much after another of its user and"
                                      " item is left out, and a click on it counts for the first. Strategy wait.")
    accidental_click_below_s: float = Field(0.0, ge=0, allow_inf_nan=False, description="A click counts as none where the longest dwell on"
                                            " its exposure, in the widest window, is shorter. Strategy wait.")
    inactive_user_events: int = Field(0, ge=0, description="Exposures of a user who had been shown fewer items before, decayed as the"
                                                           " frozen user_impressions is, are scored and not learnt.")


class Samples(Section):
    """How exposures and actions become samples."""

    strategy: Literal["wait", "eager", "fast"] = Field(
        "wait", description="wait: a sample when its window closes, in the order of event time, for logs; eager: a positive when its action"
        " arrives, a negative at the close, for live traffic; fast: every exposure at once as a negative that may be false, a"
        " positive when its action arrives, both weighted to make up for that: for live traffic with windows of hours.")
    window_ms: int = Field(1000, ge=1, le=WINDOW_MS_MAX, description="Attribution window: an action labels an exposure at most this much"
                           " earlier.")
    out_of_orderness_ms: int = Field(200, ge=0, description="How far behind the newest event of its partition an event may lie.")
    outage_ms: int = Field(60_000, ge=0, description="eager: an outage of so long costs no label; each second of it keeps a second of"
                           " exposures, some 1 KB each, on the TaskManager's heap.")
    target: str = Field("click", description="Action that is learnt.")
    negatives_kept: float = Field(1.0, gt=0, le=1, description="Share of the negatives that are learnt, chosen by the hash of their"
                                                               " causes; scores stay probabilities of all. Not with strategy fast.")
    noise: Noise = Noise()
    also: dict[str, Also] = Field({}, description="targets beside it, each a sample of its own of every exposure; strategy wait.")

    @model_validator(mode="after")
    def _fits(self) -> Samples:
        for name, one in self.also.items():
            named(name)
            named(one.action, f"also.{name}.action")
            if one.action in ("impression", "heartbeat"):
                raise ValueError(f"also.{name}.action is {one.action}, which is no action of a user: name one as like or dwell")
            if name == self.target:
                raise ValueError(f"also.{name} has the name of samples.target: give it another, as {name}-late")
        if self.also and self.live:
            raise ValueError(f"strategy {self.strategy} makes samples of one target, and also has {', '.join(self.also)}: set strategy to"
                             " wait, which knows all labels of an exposure when its windows close, or leave [samples.also] out")
        if self.rules != QUIET and self.live:
            rule = "repeated_exposure_ms" if self.rules.repeated_ms else "accidental_click_below_s"
            raise ValueError(f"strategy {self.strategy} lets samples leave before noise.{rule} can judge them: set strategy to wait, or the"
                             " rule to 0")
        if self.rules.accidental_s and CLICK not in [one.action for one in self.targets]:
            raise ValueError("noise.accidental_click_below_s judges clicks, and no target is of the action click: set it to 0")
        if self.negatives_kept < 1 and self.strategy == "fast":
            raise ValueError("negatives_kept is below 1, and strategy fast learns every exposure as a negative before its label is known:"
                             " set negatives_kept to 1, or strategy to eager or wait")
        return self

    @property
    def live(self) -> bool:
        """Whether samples leave as they arrive, so that their order tells labels, and exposures are scored when they are made."""
        return self.strategy != "wait"

    @property
    def targets(self) -> tuple[Target, ...]:
        """All of them, `target` first."""
        return (Target(self.target, self.target, self.window_ms),
                *(Target(name, one.action, one.window_ms, one.at_least) for name, one in self.also.items()))

    @property
    def rules(self) -> Rules:
        """Of `noise`, those of the join."""
        return Rules(self.noise.repeated_exposure_ms, self.noise.accidental_click_below_s)

    @property
    def joins_plainly(self) -> bool:
        """Whether samples are of one target, without a rule: the job's first statements, to which old savepoints hold."""
        return not self.also and self.rules == QUIET

    @property
    def widest_ms(self) -> int:
        """After an exposure until all its samples are decided."""
        return max(one.window_ms for one in self.targets)
