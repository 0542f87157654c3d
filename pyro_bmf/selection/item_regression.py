r"""EASE as a Bayesian regression of each item on all others.

Whether item j was rated is regressed on which other items were (Steck 2019, doi 10.1145/3308558.3313710):
:math:`x_j = X_{-j} b_j + \epsilon`, :math:`\epsilon \sim N(0, \sigma_j^2)`, with the prior
:math:`b_j \sim N(0, \sigma_j^2 / \lambda)`. All J regressions have one matrix,
:math:`P = (X^T X + \lambda I)^{-1}`: the posterior mean is :math:`b_{kj} = -P_{kj} / P_{jj}`, and, with a
user's row x, the score :math:`s_j = x_{-j} \cdot b_j` has the posterior variance

.. math:: \sigma_j^2 \, h_j(x), \qquad h_j(x) = x^T P x - (x^T P_{\cdot j})^2 / P_{jj},

in which x_j itself cancels. A new observation about it has the variance :math:`\sigma_j^2 (1 + h_j(x))`.
Given the residual variances the J posteriors are independent, so are one user's scores of different items.
The residual variance is read off the same matrix: :math:`1 / P_{jj} - \lambda` is the sum of squared
residuals plus :math:`\lambda \lVert b_j \rVert^2`.

A user that was fitted to is left out in closed form: without the row x, whose x_j is 0, the score is
:math:`s_j / (1 - h_j(x))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import FitError
from ..numerics.chunks import chunks
from ..numerics.keyed_draws import row_noise
from .contract import Scorer, Scores
from .rated_sets import Indices, RatedSets

_COLUMNS = 2_000_000
#: Bytes a cell of the matrix needs while it is inverted: in double and in single precision.
DOUBLE_BYTES, SINGLE_BYTES = 9, 5


@dataclass(frozen=True, eq=False)
class ItemRegression:
    """The posterior of the J regressions.

    Attributes
    ----------
    inverse : ndarray, shape (J, J), float32
        P.
    noise : ndarray, shape (J,), float32
        Residual variances.
    ridge : float
        The prior's precision, in units of the residual's.
    double : bool
        Whether the matrix was inverted in double precision.
    """

    inverse: NDArray[np.float32]
    noise: NDArray[np.float32]
    ridge: float
    double: bool = True
    word: ClassVar[str] = "item-regression"

    @classmethod
    def fit(cls, rated: RatedSets, ridge: float, *, double: bool = True) -> ItemRegression:
        """Fit the J regressions to the users' sets.

        Parameters
        ----------
        rated : RatedSets
        ridge : float
            Positive.
        double : bool
            Whether the matrix is inverted in double precision; single needs two thirds of the memory.

        Raises
        ------
        FitError
            If the matrix has no inverse in this precision.
        """
        matrix = rated.matrix
        n_users, n_items = matrix.shape
        buffer: NDArray[Any] = np.empty(n_items**2, dtype=np.float64 if double else np.float32)
        gram = buffer.reshape(n_items, n_items).T
        transposed = matrix.T.tocsr()
        for part in chunks(n_items, _COLUMNS // max(n_items, 1)):
            gram[:, part] = (transposed @ matrix[:, part]).toarray()
        gram[np.diag_indices(n_items)] += ridge
        # In place, and by torch: of SciPy's OpenBLAS the factorization crashes beyond some 16,000 items where
        # it has more than one thread.
        root, failed = torch.from_numpy(gram), torch.empty((), dtype=torch.int32)
        torch.linalg.cholesky_ex(root, out=(root, failed))
        if int(failed):
            raise FitError(
                f"the item regression over {n_items:,} items could not be solved with the ridge {ridge:g}: "
                "take a larger one, or the head factors."
            )
        torch.cholesky_inverse(root, out=root)
        diagonal = np.diag(gram).astype(np.float64)
        density = matrix.nnz / max(n_users * n_items, 1)
        # One pseudo-observation with the variance of an average item: none is known without any error.
        left = np.maximum(1.0 / diagonal - ridge, 0.0) + density * (1.0 - density)
        # Of the buffer nothing else may be in use when it shrinks.
        del gram, root
        inverse = _narrowed(buffer).reshape(n_items, n_items)
        return cls(inverse, (left / (n_users + 1)).astype(np.float32), float(ridge), double)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.noise)

    @cached_property
    def diagonal(self) -> NDArray[np.float32]:
        """P_jj, shape (J,)."""
        return np.ascontiguousarray(np.diag(self.inverse))

    def weights(self, item: int) -> NDArray[np.float64]:
        """Return b_j, shape (J,): zero at the item itself."""
        weights: NDArray[np.float64] = -self.inverse[:, item].astype(np.float64) / float(self.diagonal[item])
        weights[item] = 0.0
        return weights

    def scores(self, rated: RatedSets) -> Scores:
        """Return x b_j of every item, (n_users, J), float32."""
        return self._scores(rated, rated.matrix @ self.inverse)

    def score_variances(self, rated: RatedSets) -> Scores:
        """Return the posterior variances of the scores, (n_users, J), float32."""
        return self.leverage(rated, rated.matrix @ self.inverse) * self.noise

    def predictive_variances(self, rated: RatedSets) -> Scores:
        """Return the variances of a new observation about the scores, (n_users, J), float32."""
        return (1.0 + self.leverage(rated, rated.matrix @ self.inverse)) * self.noise

    def leverage(self, rated: RatedSets, product: Scores) -> Scores:
        """Return h_j(x) for ``product = X P``, (n_users, J)."""
        found = np.maximum(_row_sums(rated, product) - product**2 / self.diagonal, 0.0)
        return found.astype(np.float32, copy=False)

    def draw_scores(self, rated: RatedSets, columns: Indices, draws: Indices, seed: int) -> NDArray[Any]:
        """Draw scores: independent Normals about the posterior mean, keyed by user and item."""
        product = rated.matrix @ self.inverse
        variance = self.leverage(rated, product) * self.noise
        scores = np.take_along_axis(self._scores(rated, product), columns, axis=1)
        sd = np.sqrt(np.take_along_axis(variance, columns, axis=1))
        pairs = (rated.keys[:, None] * self.n_items + columns).reshape(-1)
        noise = row_noise(seed, rated.stream, pairs, draws, 1).reshape(len(draws), *columns.shape)
        drawn: NDArray[Any] = scores + sd * noise
        return drawn

    def influence(self, items: Indices, item: int) -> NDArray[np.float64]:
        """Return the weights of the rated items: the score is their sum."""
        return self.weights(item)[items]

    def refitted(self, rated: RatedSets) -> ItemRegression:
        """Fit a regression with the same ridge to other sets."""
        return ItemRegression.fit(rated, self.ridge, double=self.double)

    def left_out(self, rated: RatedSets, users: Indices) -> Scorer:
        """Return the closed form for users without their own row: P plus what that took off it."""
        del users

        def score(some: RatedSets) -> Scores:
            whole = rated.take(some.keys)
            own = whole.matrix @ self.inverse
            share = 1.0 / np.maximum(1.0 - _row_sums(whole, own), np.float32(1e-3))
            product = some.matrix @ self.inverse + own * (_row_sums(some, own) * share)
            found: Scores = product / -(self.diagonal + own**2 * share)
            return found

        return score

    def settings(self) -> dict[str, Any]:
        """Return the ridge and the precision."""
        return {"ridge": self.ridge, "double": self.double}

    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Return the lower triangle of P and the residual variances."""
        return {"inverse": self.inverse[np.tril_indices(self.n_items)], "noise": self.noise}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> ItemRegression:
        """Put the matrix together again."""
        noise, triangle = tensors["noise"], tensors["inverse"]
        if noise.ndim != 1 or triangle.shape != (len(noise) * (len(noise) + 1) // 2,):
            raise ValueError(f"the inverse has the shape {triangle.shape} for variances of {noise.shape}")
        ridge = settings["ridge"]
        if not (isinstance(ridge, (int, float)) and 0.0 < ridge < float("inf")):
            raise ValueError(f"the ridge is {ridge!r}")
        if bool((noise < 0.0).any()):
            raise ValueError("a residual variance is below 0")
        inverse = np.empty((len(noise), len(noise)), dtype=np.float32)
        rows, columns = np.tril_indices(len(noise))
        inverse[rows, columns] = triangle
        inverse[columns, rows] = triangle
        if bool((np.diag(inverse) <= 0.0).any()):
            raise ValueError("the inverse has a diagonal that is not positive")
        return cls(inverse, noise, float(ridge), bool(settings["double"]))

    def _scores(self, rated: RatedSets, product: Scores) -> Scores:
        scores: Scores = product / -self.diagonal
        # The product holds each rated item's own term, which is -1.
        entries = rated.matrix.tocoo()
        scores[entries.row, entries.col] += 1.0
        return scores


def _row_sums(rated: RatedSets, table: Scores) -> NDArray[np.float32]:
    """Return the sum of each user's row of a table (n_users, J) over what the user rated, (n_users, 1)."""
    return np.asarray(rated.matrix.multiply(table).sum(axis=1), dtype=np.float32).reshape(-1, 1)


def _narrowed(buffer: NDArray[Any]) -> NDArray[np.float32]:
    """Turn an array to single precision within its own memory, and give the rest of that back.

    Single numbers are written over double ones that were read already. `buffer` is of no use afterwards.
    """
    if buffer.dtype == np.float32:
        return buffer
    n = len(buffer)
    found = buffer.view(np.float32)
    for part in chunks(n, _COLUMNS):
        found[part] = buffer[part].astype(np.float32)
    del found
    buffer.resize((n + 1) // 2, refcheck=False)
    return buffer.view(np.float32)[:n]
