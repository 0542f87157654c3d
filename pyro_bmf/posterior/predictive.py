r"""Predictive moments, probabilities, intervals and joint draws of pairs, in index space.

The rows of both sides together (`pyro_bmf.model.fitted.RowPairs`) give the mean and the variance of the
predictor :math:`\eta = \mu + b_i + c_j + u_i \cdot v_j`: exact for Normal rows, over the kept draws for a
chain. A likelihood turns these into a rating's mean, variance and probabilities, taking :math:`\eta` for
Normal with these moments. Mean and variance under a Normal likelihood are then exact; shapes are not, as a
product of Normals has heavier tails than a Normal. `PairPredictive.sample` makes no such approximation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model import FactorizationModel
from ..model.fitted import RowPairs, Rows, Side
from ..model.likelihoods.normal import Likelihood
from ..numerics.chunks import CELLS, chunks
from ..numerics.generators import own_generator
from ..numerics.keyed_draws import Stream, draw_seed, row_noise
from ..numerics.quadrature import normal_nodes
from .pair_noise import draw_terms, noise_nodes, relative_noise

_NODES = 32
_INTERVAL_DRAWS = 2_000

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairPredictive:
    """Predictions for pairs of a user row and an item row.

    Attributes
    ----------
    model : FactorizationModel
        Its centre and likelihood are read, nothing else.
    users, items : Rows
        Posteriors of all rows that may be asked for; they are of one kind.
    user_stream, item_stream : Stream
        Which noise the rows' draws are made of.
    """

    model: FactorizationModel
    users: Rows
    items: Rows
    user_stream: Stream = Stream.USERS
    item_stream: Stream = Stream.ITEMS

    @property
    def device(self) -> torch.device:
        """Where the rows are, and computation happens."""
        return self.users.device

    @property
    def likelihood(self) -> Likelihood:
        """The model's likelihood."""
        return self.model.likelihood

    @property
    def rows(self) -> RowPairs:
        """The rows of both sides together, which know what they are."""
        streams = self.user_stream, self.item_stream
        return self.users.pairs_with(self.items, self.model.predictor_centre, streams)

    @torch.no_grad()
    def eta_moments(self, users: Indices, items: Indices) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the predictor of each pair, float64, shape (n,)."""
        return self.rows.moments(users, items)

    def relative_noise(self, users: Indices, items: Indices) -> tuple[Any, ...]:
        """Return the pairs' terms at their posterior means; see `pair_noise.relative_noise`."""
        return relative_noise(self.users, self.items, users, items)

    def noise_nodes(self, users: Indices, items: Indices) -> list[tuple[float, tuple[Any, ...]]]:
        """Return settings of the pairs' terms with their weights; see `pair_noise.noise_nodes`."""
        return noise_nodes(self.users, self.items, users, items)

    @torch.no_grad()
    def draw_terms(self, users: Indices, items: Indices, draws: Indices, seed: int) -> tuple[Any, ...]:
        """Draw the pairs' terms, of the shape (n_draws, n); see `pair_noise.draw_terms`."""
        sides = (self.users, users, self.user_stream), (self.items, items, self.item_stream)
        return draw_terms(sides, draws, seed)

    @torch.no_grad()
    def rating_moments(self, users: Indices, items: Indices) -> tuple[Floats, Floats]:
        """Return mean and sd of the posterior predictive of each pair's rating, shape (n,)."""
        size = CELLS // (4 * max(self.users.n_factors, _NODES))
        parts = [self._moments(users[part], items[part]) for part in chunks(len(users), size)]
        return _joined([p[0] for p in parts]), _joined([p[1].clamp_min(0.0).sqrt() for p in parts])

    def _moments(self, users: Indices, items: Indices) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the posterior predictive of each pair's rating, (n,)."""
        return self._moments_of(*self.eta_moments(users, items), users, items)

    def _moments_of(
        self, mean: Tensor, variance: Tensor, users: Indices, items: Indices
    ) -> tuple[Tensor, Tensor]:
        """Return the same for given moments of the predictors."""
        found = [
            (weight, *self.likelihood.predictive_moments(mean, variance, *terms))
            for weight, terms in self.noise_nodes(users, items)
        ]
        if len(found) == 1:
            return found[0][1], found[0][2]
        centre = torch.stack([weight * own for weight, own, _ in found]).sum(0)
        parts = [weight * (spread + (own - centre) ** 2) for weight, own, spread in found]
        return centre, torch.stack(parts).sum(0)

    @torch.no_grad()
    def mean_moments(self, users: Indices, items: Indices) -> tuple[Floats, Floats]:
        """Return mean and sd of the *mean* rating E[x | u, v] under the posterior, shape (n,).

        What is unknown of the pair itself; the noise of one rating around its mean is left out.
        """
        means, sds = [], []
        for part in chunks(len(users), CELLS // (4 * max(self.users.n_factors, _NODES))):
            eta, shares = normal_nodes(*self.eta_moments(users[part], items[part]), _NODES)
            noise = [relative.unsqueeze(-1) for relative in self.relative_noise(users[part], items[part])]
            values = self.likelihood.mean(eta, *noise)
            mean = (shares * values).sum(-1)
            means.append(mean)
            sds.append((shares * (values - mean.unsqueeze(-1)) ** 2).sum(-1).sqrt())
        return _joined(means), _joined(sds)

    @torch.no_grad()
    def plugin_mean(self, users: Indices, items: Indices) -> Floats:
        """Return the likelihood's mean at the predictor's mean, shape (n,)."""
        size = CELLS // (4 * self.users.n_factors)
        return _joined(
            [
                self.likelihood.mean(
                    self.eta_moments(users[part], items[part])[0],
                    *self.relative_noise(users[part], items[part]),
                )
                for part in chunks(len(users), size)
            ]
        )

    @torch.no_grad()
    def pmf(self, users: Indices, items: Indices, levels: Floats) -> Floats:
        """Return the probability of each level, shape (n, n_levels)."""
        at = torch.tensor(levels, dtype=torch.float64, device=self.device)
        size = CELLS // max(4 * self.users.n_factors, 2 * _NODES * len(levels))
        parts = [
            self._pmf(*self.eta_moments(users[part], items[part]), at, users[part], items[part])
            for part in chunks(len(users), size)
        ]
        return _joined(parts, (0, len(levels)))

    def _pmf(self, mean: Tensor, variance: Tensor, levels: Tensor, users: Indices, items: Indices) -> Tensor:
        """Return the probability of each level for given moments of the predictors, (n, n_levels)."""
        found = [
            (weight, self.likelihood.predictive_pmf(mean, variance, levels, *terms))
            for weight, terms in self.noise_nodes(users, items)
        ]
        if len(found) == 1:
            return found[0][1]
        return torch.stack([weight * own for weight, own in found]).sum(0)

    @torch.no_grad()
    def rating_interval(
        self, users: Indices, items: Indices, probability: float, levels: Floats | None
    ) -> tuple[Floats, Floats]:
        """Return a central posterior-predictive interval of each pair's rating, shape (n,) each.

        - A likelihood whose ratings are Normal: the quantiles of the Normal with the predictive mean and
          variance (which are exact; the shape is not, by the product's tails).
        - Any other on a discrete scale: quantiles of the predictive probabilities, so both ends are levels
          and the interval holds at least `probability`.
        - Any other on a continuous scale: quantiles of 2,000 draws with a fixed seed, the predictor taken
          for Normal.
        """
        lower, upper = [], []
        size = CELLS // (4 * max(self.users.n_factors, _NODES))
        if levels is not None:
            size = min(size, CELLS // (2 * _NODES * len(levels)))
        tail, normal = (1.0 - probability) / 2.0, self.likelihood.predicts_normals()
        for part in chunks(len(users), size):
            mean, variance = self.eta_moments(users[part], items[part])
            if normal:
                centre, spread = self._moments_of(mean, variance, users[part], items[part])
                reach = _normal_quantile(1.0 - tail) * spread.sqrt()
                low, high = centre - reach, centre + reach
            elif levels is not None:
                at = torch.tensor(levels, dtype=torch.float64, device=mean.device)
                pmf = self._pmf(mean, variance, at, users[part], items[part])
                low, high = _level_quantiles(pmf, at, tail)
            else:
                noise = self.relative_noise(users[part], items[part])
                low, high = self._drawn_quantiles(mean, variance, tail, *noise)
            lower.append(low)
            upper.append(high)
        return _joined(lower), _joined(upper)

    @torch.no_grad()
    def mean_interval(self, users: Indices, items: Indices, probability: float) -> tuple[Floats, Floats]:
        """Return a central interval of each pair's mean rating E[x | u, v], shape (n,) each.

        The likelihood's mean at the predictor's Normal quantiles: exact for a Normal predictor, as a mean is
        monotone in its predictor.
        """
        lower, upper = [], []
        for part in chunks(len(users), CELLS // (4 * self.users.n_factors)):
            mean, variance = self.eta_moments(users[part], items[part])
            reach = _normal_quantile(0.5 + probability / 2.0) * variance.sqrt()
            noise = self.relative_noise(users[part], items[part])
            ends = self.likelihood.mean(mean - reach, *noise), self.likelihood.mean(mean + reach, *noise)
            lower.append(torch.minimum(*ends))
            upper.append(torch.maximum(*ends))
        return _joined(lower), _joined(upper)

    @torch.no_grad()
    def score(self, users: Indices, items: Indices) -> NDArray[np.float32]:
        """Return the posterior-predictive mean of every user with every item, shape (n_users, n_items).

        One matrix in memory: ask for chunks of users. Beside it, likelihoods without a closed form need some
        thirty numbers a cell, a block of users at a time.
        """
        result = np.empty((len(users), len(items)), dtype=np.float32)
        if not result.size:
            return result
        for rows, columns, mean, variance in self.rows.table(users, items):
            result[rows, columns] = self._mean_ratings(mean, variance, users[rows], items[columns])
        return result

    def _mean_ratings(
        self, mean: Tensor, variance: Tensor, users: Indices, items: Indices
    ) -> NDArray[np.float32]:
        """Return the mean rating for moments of the predictor of every pair, both (n_users, n_items)."""
        if self.likelihood.identity_mean:
            units = self.model.units
            return (mean if units.identity else mean * units.scale + units.shift).float().cpu().numpy()
        shape = mean.shape
        mean, variance = mean.flatten(), variance.flatten()
        own, other = users.repeat(len(items)), np.tile(items, len(users))
        values = [
            self._moments_of(mean[block], variance[block], own[block], other[block])[0]
            for block in chunks(len(mean), CELLS // 4)
        ]
        found: NDArray[np.float32] = torch.cat(values).reshape(shape).float().cpu().numpy()
        return found

    @torch.no_grad()
    def draw_rows(self, side: Side, rows: Indices, draws: Indices, seed: int) -> tuple[Tensor, Tensor | None]:
        """Draw rows of one side: factors (n_draws, n_rows, K) and biases (n_draws, n_rows) or None.

        The same row, draw and seed give the same numbers in any request.
        """
        return self.rows.draw(side, rows, draws, seed)

    @torch.no_grad()
    def draw_eta(self, users: Indices, items: Indices, draws: Indices, seed: int) -> Tensor:
        """Draw the predictor of pairs jointly: shape (n_draws, n), a row's draws common to all its pairs."""
        rows_u, at_u = np.unique(users, return_inverse=True)
        rows_v, at_v = np.unique(items, return_inverse=True)
        u, b = self.draw_rows("user", rows_u, draws, seed)
        v, c = self.draw_rows("item", rows_v, draws, seed)
        return self.eta_of_draws((u, b), (v, c), at_u, at_v)

    @torch.no_grad()
    def eta_of_draws(
        self,
        users: tuple[Tensor, Tensor | None],
        items: tuple[Tensor, Tensor | None],
        at_users: Indices,
        at_items: Indices,
    ) -> Tensor:
        """Return the predictor of pairs, shape (n_draws, n), from drawn rows and places in them."""
        (u, b), (v, c) = users, items
        eta = u.new_empty(len(u), len(at_users))
        for part in chunks(len(at_users), CELLS // max(2 * u.shape[0] * u.shape[2], 1)):
            i = torch.tensor(at_users[part], device=u.device)
            j = torch.tensor(at_items[part], device=u.device)
            eta[:, part] = self.model.predictor(
                u.index_select(1, i),
                v.index_select(1, j),
                None if b is None else b.index_select(1, i),
                None if c is None else c.index_select(1, j),
            )
        return eta

    @torch.no_grad()
    def draw_ratings(
        self,
        eta: Tensor,
        draws: Indices,
        seed: int,
        *,
        stream: Stream = Stream.RATINGS,
        block: int = 0,
        relative: tuple[Any, ...] = (),
    ) -> Tensor:
        """Draw a rating for each drawn predictor, same shape; the process's own generators stay untouched.

        Pairs that are drawn a block at a time number their blocks, whose noise is then independent. The
        pairs' terms, `relative`, have the predictors' shape.
        """
        result = torch.empty_like(eta)
        with own_generator(eta.device) as reseed:
            for place, draw in enumerate(draws.tolist()):
                reseed(draw_seed(seed, stream, draw, block))
                result[place] = self.likelihood(eta[place], *(one[place] for one in relative)).sample()
        return result

    def sample(
        self, users: Indices, items: Indices, num_samples: int, seed: int, kind: str
    ) -> NDArray[np.float32]:
        """Draw predictors (``"eta"``) or ratings (``"rating"``) of pairs jointly, shape (num_samples, n)."""
        result = np.empty((num_samples, len(users)), dtype=np.float32)
        rows = len(np.unique(users)) + len(np.unique(items))
        for part in chunks(num_samples, CELLS // max(rows * (self.users.n_factors + 1), len(users), 1)):
            draws = np.arange(part.start, part.stop)
            values = self.draw_eta(users, items, draws, seed)
            if kind == "rating":
                terms = self.draw_terms(users, items, draws, seed)
                values = self.draw_ratings(values, draws, seed, relative=terms)
            else:
                values = in_rating_units(values, self.model)
            result[part] = values.float().cpu().numpy()
        return result

    def _drawn_quantiles(
        self, mean: Tensor, variance: Tensor, tail: float, *noise: Any
    ) -> tuple[Tensor, Tensor]:
        lows, highs = [], []
        for part in chunks(len(mean), CELLS // _INTERVAL_DRAWS):
            draws = np.arange(_INTERVAL_DRAWS)
            normal = row_noise(0, Stream.INTERVALS, np.zeros(1, dtype=np.int64), draws, 1)[:, :, 0]
            eta = mean[part] + variance[part].sqrt() * torch.from_numpy(normal).to(mean)
            with own_generator(eta.device) as reseed:
                reseed(0)
                values = self.likelihood(eta, *(relative[part] for relative in noise)).sample()
            ends = values.new_tensor([tail, 1.0 - tail])
            low, high = torch.quantile(values, ends, dim=0)
            lows.append(low)
            highs.append(high)
        return torch.cat(lows), torch.cat(highs)


def _level_quantiles(pmf: Tensor, levels: Tensor, tail: float) -> tuple[Tensor, Tensor]:
    """Return both ends of central intervals of levels with these probabilities, (n,) each."""
    below = pmf.cumsum(-1)
    below = below / below[:, -1:]
    # The smallest level with at least this much probability at or below it.
    low = (below < tail).sum(-1).clamp_max(len(levels) - 1)
    high = (below < 1.0 - tail).sum(-1).clamp_max(len(levels) - 1)
    return levels[low], levels[high]


def in_rating_units(eta: Tensor, model: FactorizationModel) -> Tensor:
    """Return predictors in the ratings' unit."""
    units = model.units
    return eta if units.identity else eta * units.scale + units.shift


def _normal_quantile(probability: float) -> float:
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))


def _joined(parts: list[Any], empty: tuple[int, ...] = (0,)) -> Floats:
    if not parts:
        return np.zeros(empty)
    joined: Floats = torch.cat(parts).double().cpu().numpy()
    return joined
