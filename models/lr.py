"""Logistic regression over the same features: the baseline that a factorization machine has to beat."""

from __future__ import annotations

from headrace.models.fm import Linear


class LR(Linear):
    """Rows are float32[u,1]: w, on which l2 is."""

    name = "lr"
    decayed = 1.0, 0.0

    @staticmethod
    def dim(factors: int) -> int:
        """Floats of a row; there are no factors."""
        return 1
