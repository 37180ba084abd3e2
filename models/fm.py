"""The factorization machine: w of every feature, and pairs of a user's feature with an item's through inner products of their factors.

logit = sum of w x + <sum of v x over the user's slots, sum of v x over the item's>, in O(F k): of the pairs of Rendle's machine
("Factorization Machines", ICDM 2010) those across the two sides, as in SVDFeature (Chen et al., JMLR 2012) and, with weights of 0 and 1 for
pairs of fields, in FwFM (Pan et al., WWW 2018). Pairs within a side, or with bias and context, cost accuracy on the logs of docs/models.md,
and without them inner products of user and item vectors rank as the model does. There is no separate bias: the feature set carries one.
"""

from __future__ import annotations

import numpy as np

from headrace.models.fields import ITEM, USER, Fields
from headrace.models.kernels import learn_in_turn, logits_of, sigmoid


class Linear:
    """What the models share: logistic regression of w, and factors where rows have them. Rows are float32[u,1+k]: w, then k factors."""

    name = ""
    decayed = 0.0, 0.0  # shares of l2 on w and on factors

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    def predict(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Logits float32[n] of index int32[n,F] into rows, values float32[n,F]."""
        self._check(rows, index, values)
        logits = np.empty(len(index), np.float32)
        logits_of(rows, index, values, *self.fields, logits)
        return logits

    def learn(self, rows: np.ndarray, seen: np.ndarray, index: np.ndarray, values: np.ndarray, label: np.ndarray, weight: np.ndarray,
              l2: float, rate: float, stage: np.ndarray | None = None, kept: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(logits float32[n], grads, squares float32[u,1+k]): each sample predicted, then learnt, in turn; gradients and their squares are
        summed for each row.

        A sample's gradient of the weighted log-loss, and of weight * l2 / 2 * |v|^2 for the features of a side that it holds (as libFM's
        SGD; w of the FM is not decayed), is taken where the samples before it have moved the rows to, by AdaGrad steps of `rate` as guessed
        from `seen` int64[u], the samples of each row learnt before. rate 0: all at `rows`. stage uint8[n] (kernels.WHOLE and the others):
        how final each label is, None: all are. `kept`: share of the negatives that are learnt (kernels.against_odds).
        """
        self._check(rows, index, values)
        logits, grads, squares = np.empty(len(index), np.float32), np.zeros(rows.shape, np.float32), np.zeros(rows.shape, np.float32)
        linear, factors = self.decayed
        stage = np.zeros(len(label), np.uint8) if stage is None else stage
        learn_in_turn(np.array(rows), np.array(seen), index, values, *self.fields, label, weight, stage, kept, linear * l2,
                      factors * l2, rate, logits, grads, squares)
        return logits, grads, squares

    def contributions(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(linear float32[n,F], pairs float32[n,F]): what each slot adds. A pair's product is split evenly between its two slots, so that
        both summed over the slots give the logit."""
        self._check(rows, index, values)
        vx = rows[index][:, :, 1:] * (values * self.fields.scale)[:, :, None]
        user, item = self.fields.side == USER, self.fields.side == ITEM
        pairs = np.zeros(values.shape, np.float32)
        pairs[:, user] = 0.5 * np.einsum("nfk,nk->nf", vx[:, user], vx[:, item].sum(axis=1))
        pairs[:, item] = 0.5 * np.einsum("nfk,nk->nf", vx[:, item], vx[:, user].sum(axis=1))
        return rows[index][:, :, 0] * values, pairs

    def _check(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
        """The door of the kernels: a bad index would read or write another row silently."""
        assert rows.ndim == 2 and index.shape == values.shape and index.ndim == 2, "rows [u,dim], index and values [n,F]"
        assert index.shape[1] == len(self.fields.side), "the model's fields are of another feature set"
        assert not index.size or (index.min() >= 0 and index.max() < len(rows)), "an index lies outside the rows"


class FM(Linear):
    """Main effects and pairs across the sides; l2 is on factors."""

    name = "fm"
    decayed = 0.0, 1.0

    @staticmethod
    def dim(factors: int) -> int:
        """Floats of a row."""
        return 1 + factors


def probability(logits: np.ndarray) -> np.ndarray:
    """Logistic function, float32[n] to float32[n]."""
    out = np.empty(len(logits), np.float32)
    sigmoid(logits, out)
    return out
