"""Section [quality] of the configuration: bounds of features that their definitions do not say, and what is done beyond them."""

from __future__ import annotations

from pydantic import Field

from headrace.connections import Section


class Quality(Section):
    """Quality and drift of features by the watch role (docs/quality.md); a definition's own `bounds` go before these."""

    enabled: bool = Field(True, description="Wherever the watch role runs (watch.enabled).")
    freeze: bool = Field(True, description="Freeze a feature to its default when it breaks a hard bound: min and max, null_rate,"
                                           " default_rate, stale. Drift is an alarm only.")
    interval_s: float = Field(5.0, gt=0, description="How often features are judged.")
    window_s: float = Field(30.0, gt=0, description="Length of the window that they are judged by, at least.")
    samples_min: int = Field(500, ge=50, description="Exposures of the window, at least: a quiet stream is judged by a longer one, of"
                                                     " twelve times window_s at most.")
    patience: int = Field(2, ge=1, description="Intervals in turn out of bounds before it is told.")
    reference_s: float = Field(3600.0, gt=0, description="The reference of drift is taken over so long, at least, from the first start on.")
    reference_min: int = Field(5000, ge=100, description="And of so many exposures, at least.")
    psi: float = Field(0.25, gt=0, description="Bound of the population stability index against the reference, of features that have a"
                                               " standing distribution (docs/quality.md).")
    null_rate: float = Field(0.01, ge=0, le=1, description="Bound of the share of exposures that read no finite number.")
    outside: float = Field(0.01, ge=0, le=1, description="Share of values that may lie outside a definition's min and max.")
    stale_s: float = Field(20.0, gt=0, description="A source may be silent for so long, whatever its rate.")
    stale_events: float = Field(20.0, ge=5, description="And for so many events as it would have brought by its rate an exposure.")
