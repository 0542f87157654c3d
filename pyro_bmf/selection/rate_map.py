r"""From a head's score to the probability that a pair is in the completed data.

The map is a logistic in the score's logarithm and in the counts of the user and the item,

.. math:: \mathrm{logit}\, r_{ij} = (1 - t_i) f_0(x_{ij}) + t_i f_1(x_{ij}) + a n_i + b n_i^2 + c m_j
          + d m_j^2 + e n_i m_j + f z_j + g,

with :math:`x = \log(\epsilon \log(1 + e^{s / \epsilon}))`, which is log s of large scores and falls on for
negative ones; f_0 and f_1 piecewise linear and rising; :math:`t_i` between 0 for users with few ratings and 1
for those with many; n and m logarithms of 1 + counts, less their means; :math:`z_j` is 1 for items that were
never rated, which have a rate of their own, else 0. Scores and counts are divided by the share of the data
that they were counted in, so that a map holds for more data too.

What is kept aside tells of r: of a pair that is not among the share a that was trained on, the probability to
be among the validation ratings, a share b, is :math:`p = b r / (1 - a r)`. The map maximises the Bernoulli
likelihood of p over all candidate pairs of some users, with weak Normal priors, by Fisher scoring. The
candidate pairs of items that were never rated count for half an event and half a non-event more than there
are, spread evenly over them: none of them may have come true, and then their rate would fall without end.
As many are so expected of them as came true, and a half (pseudo-events, as of Jeffreys' prior of a rate).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import lsq_linear

from ..numerics.chunks import chunks
from .contract import Scores
from .horizon import Floats, Horizon
from .rated_sets import Indices
from .rating_term import RatingTerm

#: Pieces of f_0 and of f_1, whose knots are at these quantiles of the scores that came true. Most pairs have
#: scores below the lowest of these, and a tenth of the expected choices.
PIECES = 6
QUANTILES = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.98)
#: Share of the mean density of the training data at which the score's logarithm bends.
BEND = 0.25
_CELLS = 60_000
_STEPS = 30
#: Precision of the coefficients' Normal priors about zero; the constant has none.
_PRIOR = 0.01
#: Events, and as many non-events, that are added to the pairs of items that were never rated.
_ADDED = 0.5
_FAR = 60.0
_WIDTH = 2 * PIECES + 7


@dataclass(frozen=True, eq=False)
class Cells:
    """Candidate pairs of some users: scores, counts, and which of them came true.

    Attributes
    ----------
    scores : ndarray, shape (n_users, J), float32
        NaN where a pair is no candidate. In units of the share that they were fitted to.
    true : csr_matrix, shape (n_users, J)
        One where a pair is among the held-out share.
    user_counts, item_counts : ndarray
        In the same units.
    """

    scores: Scores
    true: Any
    user_counts: Floats
    item_counts: Floats

    @classmethod
    def joined(cls, parts: list[Cells]) -> Cells:
        """Return the pairs of all users of some parts, whose items are the same."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([one.scores for one in parts]),
            sparse.vstack([one.true for one in parts], format="csr"),
            np.concatenate([one.user_counts for one in parts]),
            parts[0].item_counts,
        )

    def take(self, users: Indices) -> Cells:
        """Return the pairs of some of the users."""
        return Cells(self.scores[users], self.true[users], self.user_counts[users], self.item_counts)


@dataclass(frozen=True, eq=False)
class RateMap:
    """A fitted map.

    Attributes
    ----------
    coefficients : ndarray
    knots : ndarray, shape (PIECES + 1,)
        Of x.
    bend : float
        epsilon.
    users : ndarray, shape (2,)
        n_i at which t_i is 0 and 1.
    centre : ndarray, shape (2,)
        What is taken off n_i and m_j.
    term : RatingTerm or None
        What predicted ratings add, where they are known.
    """

    coefficients: Floats
    knots: Floats
    bend: float
    users: Floats
    centre: Floats
    term: RatingTerm | None = None

    @classmethod
    def fit(cls, cells: Cells, *, seen: float, share: float) -> RateMap:
        """Fit the map to candidate pairs, of which `true` are those among the held-out `share`."""
        n_all = max(float(cells.user_counts.mean()), 1e-12) if len(cells.user_counts) else 1.0
        bend = BEND * max(min(n_all / max(len(cells.item_counts), 1), 1.0), 1e-9)
        where = cells.true.tocoo()
        found = cells.scores[where.row, where.col]
        found = found[np.isfinite(found)]
        knots = _knots(_log_score(found, bend))
        own = np.log1p(cells.user_counts)
        low, high = np.quantile(own, (0.05, 0.95)) if len(own) else (0.0, 1.0)
        weights = cells.item_counts
        middle = float(np.average(np.log1p(weights), weights=weights)) if weights.sum() > 0 else 0.0
        centre = np.array([own.mean() if len(own) else 0.0, middle])
        users = np.array([low, max(high, low + 1e-3)])
        start = cls(np.zeros(_WIDTH), knots, bend, users, centre)
        rate = (len(found) + 0.5) / (np.isfinite(cells.scores).sum() + 1.0) / share
        start.coefficients[0] = np.log(min(rate, 0.5) / (1.0 - min(rate, 0.5)))
        few = np.arange(0, len(own), 8)
        warm = start._climbed(cells.take(few), seen, share, _STEPS) if len(few) > 50 else start
        return warm._climbed(cells, seen, share, _STEPS)

    def rate(self, scores: Scores, user_counts: Floats, item_counts: Floats) -> Floats:
        """Return r of every item for some users, (n_users, J), of scores and counts in the map's units."""
        n, m, t = self._terms(user_counts, item_counts)
        c = self.coefficients
        x = _log_score(scores, self.bend)
        low, high = self._curve(c[1 : 1 + PIECES], x), self._curve(c[1 + PIECES : 1 + 2 * PIECES], x)
        a, b, d, e, f, g = c[1 + 2 * PIECES :]
        eta = low + t[:, None] * (high - low)
        eta += (
            (c[0] + a * n + b * n**2)[:, None]
            + (d * m + e * m**2 + g * (item_counts == 0))
            + f * n[:, None] * m
        )
        found: Floats = 1.0 / (1.0 + np.exp(-np.clip(eta, -_FAR, _FAR)))
        return found

    def given(self, rates: Floats, means: Floats) -> Floats:
        """Return rates with what predicted mean ratings add; the shapes broadcast."""
        return rates if self.term is None else self.term.rate(rates, means)

    def most(self, rates: Floats) -> Floats:
        """Return what `given` is at most, whatever the predicted ratings."""
        return rates if self.term is None else self.term.most(rates)

    def candidate_rates(self, cells: Cells) -> Floats:
        """Return r of the candidates among some users' pairs, (n_users, J), 0 where a pair is none."""
        inside = np.isfinite(cells.scores)
        scores = np.where(inside, cells.scores, np.float32(0.0))
        found: Floats = np.where(inside, self.rate(scores, cells.user_counts, cells.item_counts), 0.0)
        return found

    def log_score(self, cells: Cells, *, seen: float, share: float) -> float:
        """Return the mean log-probability of what came true and what did not, in nats a candidate pair."""
        total, n = 0.0, 0
        for part in chunks(len(cells.user_counts), max(1, _CELLS // max(len(cells.item_counts), 1))):
            some = cells.take(np.arange(part.start, part.stop))
            true, inside = some.true.toarray() > 0, np.isfinite(some.scores)
            p = Horizon(seen, share, "").chosen(self.candidate_rates(some)[inside])
            total += float(np.where(true[inside], np.log(p), np.log1p(-p)).sum())
            n += p.size
        return total / max(n, 1)

    def tensors(self) -> Mapping[str, Floats]:
        """Return the arrays that rebuild it."""
        bend = np.array([self.bend])
        term = {} if self.term is None else self.term.tensors()
        own = {"coefficients": self.coefficients, "knots": self.knots, "users": self.users, "bend": bend}
        return own | {"centre": self.centre} | {f"term.{name}": value for name, value in term.items()}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Floats]) -> RateMap:
        """Rebuild it."""
        shapes = {
            "coefficients": (_WIDTH,),
            "knots": (PIECES + 1,),
            "users": (2,),
            "bend": (1,),
            "centre": (2,),
        }
        for name, shape in shapes.items():
            if tensors[name].shape != shape:
                raise ValueError(f"{name} has the shape {tensors[name].shape}, {shape} is needed")
        rising = bool((np.diff(tensors["knots"]) >= 0.0).all()) and tensors["users"][1] > tensors["users"][0]
        if not (rising and tensors["bend"][0] > 0.0):
            raise ValueError("its knots or its range of users do not rise, or its bend is not positive")
        own = {n.removeprefix("term."): value for n, value in tensors.items() if n.startswith("term.")}
        return cls(tensors["coefficients"], tensors["knots"], float(tensors["bend"][0]), tensors["users"],
                   tensors["centre"], RatingTerm.from_saved(own) if own else None)  # fmt: skip

    def _terms(self, user_counts: Floats, item_counts: Floats) -> tuple[Floats, Floats, Floats]:
        own = np.log1p(user_counts)
        t = np.clip((own - self.users[0]) / (self.users[1] - self.users[0]), 0.0, 1.0)
        return own - self.centre[0], np.log1p(item_counts) - self.centre[1], t

    def _curve(self, slopes: Floats, x: Floats) -> Floats:
        """Return a piecewise-linear function that is 0 at the first knot."""
        ends = np.concatenate([[self.knots[0] - _FAR], self.knots[1:-1], [self.knots[-1] + _FAR]])
        heights = np.concatenate([[0.0], np.cumsum(slopes * np.diff(ends))]) - slopes[0] * _FAR
        found: Floats = np.interp(x, ends, heights)
        return found

    def _features(self, cells: Cells) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the features of the candidates among some users' pairs, and whether they came true.

        The last one is whether the item was never rated.
        """
        n, m, t = self._terms(cells.user_counts, cells.item_counts)
        row, column = np.nonzero(np.isfinite(cells.scores))
        x = _log_score(cells.scores[row, column], self.bend)
        n, m, t, never = n[row], m[column], t[row], cells.item_counts == 0
        features = np.empty((len(x), _WIDTH))
        features[:, 0] = 1.0
        for piece in range(PIECES):
            low = self.knots[piece] if piece else -np.inf
            high = self.knots[piece + 1] if piece < PIECES - 1 else np.inf
            value = np.clip(x, low, high) - self.knots[piece]
            features[:, 1 + piece] = (1.0 - t) * value
            features[:, 1 + PIECES + piece] = t * value
        for place, value in enumerate((n, n**2, m, m**2, n * m, never[column]), 1 + 2 * PIECES):
            features[:, place] = value
        true = np.asarray(cells.true[row, column]).reshape(-1) > 0 if len(row) else np.zeros(0, dtype=bool)
        return features, true

    def _climbed(self, cells: Cells, seen: float, share: float, steps: int) -> RateMap:
        """Go up the likelihood by Fisher scoring, slopes kept at zero or more, some users at a time."""
        lower = np.full(len(self.coefficients), -np.inf)
        lower[1 : 1 + 2 * PIECES] = 0.0
        prior = np.full(len(lower), _PRIOR)
        prior[0] = 0.0
        here, length = self, 1.0
        value, slope, curvature = here._sums(cells, seen, share, prior)
        for _ in range(steps):
            root = np.linalg.cholesky(curvature + 1e-9 * np.eye(len(lower)))
            aim = np.linalg.solve(root, curvature @ here.coefficients + slope)
            wanted = lsq_linear(root.T, aim, (lower, np.inf)).x
            length = 1.0
            while True:
                to = here.coefficients + length * (wanted - here.coefficients)
                there = RateMap(to, self.knots, self.bend, self.users, self.centre)
                new = there._sums(cells, seen, share, prior)
                if new[0] >= value or length < 1e-3:
                    break
                length /= 2
            gain = new[0] - value
            if gain < 0.0:
                break
            here, (value, slope, curvature) = there, new
            if gain < 1e-3:
                break
        return here

    def _sums(self, cells: Cells, seen: float, share: float, prior: Floats) -> tuple[float, Floats, Floats]:
        """Return log posterior, its gradient and the Fisher information."""
        c = self.coefficients
        value, slope, curvature = -0.5 * float(prior @ c**2), -prior * c, np.diag(prior)
        about, size = Horizon(seen, share, ""), max(1, _CELLS // max(len(cells.item_counts), 1))
        n_never = np.isfinite(cells.scores[:, cells.item_counts == 0]).sum()
        each = _ADDED / max(n_never, 1)
        for part in chunks(len(cells.user_counts), size):
            features, true = self._features(cells.take(np.arange(part.start, part.stop)))
            rate = 1.0 / (1.0 + np.exp(-np.clip(features @ c, -_FAR, _FAR)))
            p, steep = about.chosen(rate), about.steepness(rate)
            missed = 1.0 - p
            added = each * features[:, -1]
            value += float(((true + added) * np.log(p) + (~true + added) * np.log1p(-p)).sum())
            weighted = steep / (p * missed)
            slope = slope + ((true + added - (1.0 + 2.0 * added) * p) * weighted) @ features
            information = steep * weighted * (1.0 + 2.0 * added)
            curvature = curvature + (features * information[:, None]).T @ features
        return value, slope, curvature


def _log_score(scores: Scores, bend: float) -> Floats:
    """Return log of the softplus of scores."""
    ratio = scores.astype(np.float64) / bend
    soft = np.logaddexp(0.0, ratio)
    # Far below zero the softplus is the exponential itself.
    found: Floats = np.where(ratio < -30.0, ratio, np.log(np.maximum(soft, 1e-300))) + np.log(bend)
    lowest: Floats = np.maximum(found, np.log(bend) - _FAR)
    return lowest


def _knots(x: Floats) -> Floats:
    """Return knots at quantiles of the scores that came true, apart from each other."""
    if not len(x):
        return np.linspace(-4.0, 0.0, PIECES + 1)
    knots = np.quantile(x, QUANTILES)
    apart: Floats = np.maximum.accumulate(knots + 1e-3 * np.arange(PIECES + 1))
    return apart
