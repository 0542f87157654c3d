r"""Stacking of predictive distributions: the mixture of systems that predicts validation ratings best.

.. math::

   \max_w \; \frac{1}{n} \sum_i \log \sum_k w_k \, p_k(x_i), \qquad w_k \ge 0, \quad \sum_k w_k = 1

(Yao et al. 2018, doi 10.1214/17-BA1091), with held-out ratings in the place of leave-one-out. The objective
is concave, and the gradient :math:`g_k` at any weights bounds what better ones could gain: no more than
:math:`\max_k g_k - 1`, which is returned as `StackingWeights.gap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from pyro_bmf.data import Ratings, Split
from pyro_bmf.errors import DataError, FitError, SettingsError
from pyro_bmf.evaluation.elpd import clustered_se
from pyro_bmf.evaluation.metrics.probabilities import NLL, DensityNLL
from pyro_bmf.evaluation.per_rating import ask_all
from pyro_bmf.evaluation.provenance import check_provenance
from pyro_bmf.systems.contract import BasePredictor, FittedTo, Predictor

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
#: Nats a rating that better weights might gain where the search ends.
TOLERANCE = 1e-7
#: Steps of expectation-maximisation after the search, at most.
_STEPS = 20_000


@dataclass(frozen=True, eq=False)
class StackingWeights:
    """Weights of a mixture.

    Attributes
    ----------
    weights : ndarray, shape (k,)
    gap : float
        No weights have an objective that is higher by more, nats a rating.
    """

    weights: Floats
    gap: float


def stacking_weights(log_prob: Floats) -> StackingWeights:
    """Return the weights of the mixture with the highest mean log-probability.

    Parameters
    ----------
    log_prob : ndarray, shape (n, k)
        Log-probability (density) that each of k systems gave to each of n ratings, nats.

    Raises
    ------
    SettingsError
        If there are not two systems, or numbers that are not finite.
    FitError
        If weights within `TOLERANCE` of the best are not found.
    """
    if log_prob.ndim != 2 or log_prob.shape[0] < 1 or log_prob.shape[1] < 2:
        raise SettingsError(
            f"log_prob has the shape {log_prob.shape}: give ratings times systems, two or more."
        )
    if not np.isfinite(log_prob).all():
        raise SettingsError("log_prob holds a number that is not finite: no mixture can be judged by it.")
    relative = np.exp(log_prob - log_prob.max(1, keepdims=True))
    k = log_prob.shape[1]

    def gradient(weights: Floats) -> Floats:
        found: Floats = (relative / (relative @ weights)[:, None]).mean(0)
        return found

    def worth(weights: Floats) -> tuple[float, Floats]:
        inside = np.maximum(weights, 0.0)
        inside = inside / inside.sum() if inside.sum() > 0.0 else np.full(k, 1.0 / k)
        return -float(np.log(relative @ inside + 1e-300).mean()), -gradient(inside + 1e-12)

    found = minimize(
        worth,
        np.full(k, 1.0 / k),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * k,
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like}],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    # Off the border, where a weight of nought would stay; each step can only raise the objective.
    weights = np.clip(found.x, 1e-9, None)
    weights /= weights.sum()
    for _ in range(_STEPS):
        slope = gradient(weights)
        gap = float(slope.max()) - 1.0
        if gap <= TOLERANCE:
            return StackingWeights(weights, max(gap, 0.0))
        weights = weights * slope
        weights /= weights.sum()
    raise FitError(
        f"Stacking weights within {TOLERANCE:g} nats a rating of the best were not found, but within "
        f"{gap:.2g}: leave out systems that predict alike."
    )


class StackedPredictor(BasePredictor):
    """The mixture of several systems' predictive distributions: a `pyro_bmf.systems.contract.Predictor`.

    Parameters
    ----------
    predictors : sequence of Predictor
        Over the same vocabularies.
    weights : ndarray, shape (k,)
    """

    name = "stack"

    def __init__(self, predictors: Sequence[Predictor], weights: Floats) -> None:
        self.predictors, self.weights = tuple(predictors), weights

    @property
    def fitted_to(self) -> FittedTo | None:
        """What the first system was fitted to; the weights have read its validation ratings besides."""
        return self.predictors[0].fitted_to

    def predict_mean(self, users: Indices, items: Indices) -> Floats:
        """Return the mixture's mean."""
        return self._mixed([one.predict_mean(users, items) for one in self.predictors])

    def predict_sd(self, users: Indices, items: Indices) -> Floats:
        """Return the mixture's standard deviation, of its parts and between them."""
        means = [np.asarray(one.predict_mean(users, items), dtype=np.float64) for one in self.predictors]
        sds = [np.asarray(one.predict_sd(users, items), dtype=np.float64) for one in self.predictors]
        mean = self._mixed(means)
        squares = [sd**2 + (own - mean) ** 2 for own, sd in zip(means, sds, strict=True)]
        found: Floats = np.sqrt(self._mixed(squares))
        return found

    def predict_pmf(self, users: Indices, items: Indices, levels: Floats) -> Floats:
        """Return the mixture's probability of each level."""
        return self._mixed([one.predict_pmf(users, items, levels) for one in self.predictors])

    def score_items(self, users: Indices) -> Floats:
        """Return the mixture's scores of all items, which are means of the systems' own."""
        return self._mixed([one.score_items(users) for one in self.predictors])

    def _mixed(self, parts: Sequence[NDArray[Any]]) -> Floats:
        total: Floats = np.zeros(parts[0].shape)
        for weight, part in zip(self.weights.tolist(), parts, strict=True):
            total += weight * np.asarray(part, dtype=np.float64)
        return total


@dataclass(frozen=True)
class StackingRow:
    """One system, or the mixture, on validation and test ratings.

    Attributes
    ----------
    name : str
    weight : float or None
        In the mixture; None for the mixture itself.
    valid_nll, test_nll : float
        Mean negative log-probability (density on a continuous scale), nats a rating.
    valid_rmse, test_rmse : float
        Rating units.
    test_gain, test_gain_se : float or None
        The mixture's log-probability less this one's, nats a rating, and its standard error with users
        independent of each other; None for the mixture.
    """

    name: str
    weight: float | None
    valid_nll: float
    valid_rmse: float
    test_nll: float
    test_rmse: float
    test_gain: float | None
    test_gain_se: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the content as a plain dict."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Stacking:
    """A stack of systems.

    Attributes
    ----------
    rows : tuple of StackingRow
        The systems in the order given, and last the mixture, ``"stack"``. The weights were chosen on the
        validation ratings, whose figures of the mixture are therefore too good; those of test are not.
    gap : float
        See `StackingWeights`.
    of : {"probability", "density"}
        What log-probabilities are of.
    predictor : StackedPredictor
        The mixture.
    """

    rows: tuple[StackingRow, ...]
    gap: float
    of: str
    predictor: StackedPredictor

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each system."""
        return {row.name: row.weight for row in self.rows if row.weight is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return weights and figures, ready for JSON."""
        return {
            "weights": self.weights,
            "gap": self.gap,
            "of": self.of,
            "rows": [r.to_dict() for r in self.rows],
        }


def stack(predictors: Mapping[str, Predictor], split: Split, *, chunk: int = 100_000) -> Stacking:
    """Choose the mixture of systems that predicts a split's validation ratings best, and score it on test.

    Parameters
    ----------
    predictors : mapping
        Two systems or more by name, all fitted to the train part of the split alone.
    split : Split
    chunk : int
        Ratings predicted at a time.

    Raises
    ------
    DataError
        If there are no validation ratings.
    SettingsError
        If there are fewer than two systems, one is called ``"stack"``, or one was fitted to another split or
        to the validation ratings.
    FitError
        If a system's answers are no distributions.
    """
    if len(predictors) < 2 or "stack" in predictors:
        raise SettingsError(
            f"stack was given {', '.join(map(repr, predictors)) or 'nothing'}: give two systems or more by "
            "name, none of them called 'stack'."
        )
    for name, predictor in predictors.items():
        check_provenance(predictor, split, part="valid", name=name)
    if not len(split.valid_rows):
        raise DataError("the split has no validation ratings to choose weights on: split with some.")
    said = {
        part: [_said(predictor, ratings, chunk) for predictor in predictors.values()]
        for part, ratings in (("valid", split.valid), ("test", split.test))
    }
    found = stacking_weights(np.stack([log_prob for log_prob, _ in said["valid"]], 1))
    figures: dict[str, list[Floats]] = {}
    errors: dict[str, list[float]] = {}
    for part, ratings in (("valid", split.valid), ("test", split.test)):
        every = np.stack([log_prob for log_prob, _ in said[part]], 1)
        means = np.stack([mean for _, mean in said[part]], 1)
        top = every.max(1)
        mixed = top + np.log(np.exp(every - top[:, None]) @ found.weights)
        figures[part] = [*every.T, mixed]
        columns = [*means.T, means @ found.weights]
        errors[part] = [float(np.sqrt(np.mean((mean - ratings.ratings) ** 2))) for mean in columns]
    _, users = np.unique(split.test.users, return_inverse=True)
    n, rows = len(split.test), []
    for place, name in enumerate((*predictors, "stack")):
        alone = place < len(predictors)
        gain = figures["test"][-1] - figures["test"][place]
        rows.append(
            StackingRow(
                name=name,
                weight=float(found.weights[place]) if alone else None,
                valid_nll=-float(figures["valid"][place].mean()),
                valid_rmse=errors["valid"][place],
                test_nll=-float(figures["test"][place].mean()),
                test_rmse=errors["test"][place],
                test_gain=float(gain.mean()) if alone else None,
                test_gain_se=clustered_se(gain, users) / n if alone else None,
            )
        )
    kind = "density" if split.ratings.scale.levels is None else "probability"
    predictor = StackedPredictor(list(predictors.values()), found.weights)
    return Stacking(tuple(rows), found.gap, kind, predictor)


def _said(predictor: Predictor, ratings: Ratings, chunk: int) -> tuple[Floats, Floats]:
    """Return what a system says of ratings: log-probabilities (densities), and means, (n,) each."""
    asked = ask_all(predictor, ratings, (NLL(), DensityNLL()), seed=0, chunk=chunk)
    (losses,) = asked.losses.values()  # one of the two, by the scale
    return -losses, asked.mean
