r"""What a row's posterior should be, given the others': the target that its q is judged by.

With the other side's q fixed, the best q of user i alone has the density

.. math::

   q^*(u_i) \propto p(u_i) \exp\Big(\frac{1}{\beta_u} \sum_{j} E_{q(v_j)}[\log p(x_{ij} \mid u_i, v_j)]\Big),

as Eq. 7 separates into such terms; at :math:`\beta_u = 1` it is mean-field's own condition. Given
:math:`u_i`, the predictor is linear in :math:`v_j`, so under a Normal q it is Normal, and the
expectation is one integral of one dimension: closed form under Normal noise, quadrature elsewhere.
Log-normal factors are averaged over common draws of the other side. Joint k-hat over all rows would say
nothing: it has thousands of dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SettingsError
from ..methods.cross_feedback.settings import CrossFeedback
from ..model.fitted import RowPriors, Side
from ..model.pair_terms import pair_terms
from ..model.prior_density import given_hyperparameters, has_hyperparameters
from ..model.rows import RowPosterior, join
from ..model.standard_units import standardised
from ..numerics.chunks import chunks
from ..numerics.generators import own_generator
from ..numerics.keyed_draws import Stream, draw_seed
from ..numerics.quadrature import normal_nodes
from ..numerics.segment_sums import Segments, add_segments, bag_sum, segment_sum
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices
from .prior_draws import learned_priors, prior_of

_NODES = 5
#: Draws of the other side where its factors are log-normal, and of hyperparameters.
_COMMON_DRAWS, _HYPER_DRAWS = 8, 16
#: Ratings by draws by nodes at once.
_CELLS = 3_000_000
_LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class RowTargets:
    """Log-densities of the rows of one side: of their q, of the prior, and of their ratings given the others.

    Parameters
    ----------
    posterior : Posterior
        Variational: a chain's rows have no q.
    side : {"user", "item"}
    seed : int
        Of common draws.

    Raises
    ------
    SettingsError
        For a chain, or a model whose rows' priors depend on what was rated.
    """

    posterior: Posterior
    side: Side
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no q of single rows."""
        _ = self.rows
        learned = self.learned_priors
        if self.posterior.model.implicit is not None if learned is None else not learned.shared:
            raise SettingsError(
                "the prior means of this posterior's rows come from which pairs were rated, and have no q "
                "that goes with a row's own: its target is not known. Fit without implicit feedback "
                "(--no-implicit; implicit=False), or draw rows by sweeps (--preset default), whose measure "
                "is that of a chain."
            )

    # ---------------------------------------------------------------- what there is

    @cached_property
    def rows(self) -> RowPosterior:
        """Return q of this side, float64."""
        return self._normals(self.side == "user")

    @cached_property
    def others(self) -> RowPosterior:
        """Return q of the other side, float64."""
        return self._normals(self.side == "item")

    def _normals(self, users: bool) -> RowPosterior:
        rows = self.posterior.user_rows if users else self.posterior.item_rows
        found: RowPosterior = rows.normals(
            "draws of a chain have no q of single rows: their measure is R-hat."
        )
        return found.double()

    @cached_property
    def learned_priors(self) -> RowPriors | None:
        """Return the rows' priors as the method learned them; None where they are the model's."""
        # One row stands for all: their priors are one.
        return learned_priors(self.posterior, self.side, np.zeros(1, dtype=np.int64))

    @property
    def width(self) -> int:
        """Factors, and one for a bias."""
        return self.rows.n_factors + int(self.posterior.model.biases)

    @cached_property
    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the ratings in the order of this side's rows: starts (n + 1,), others' places, values."""
        train = self.posterior.train
        own, other = (train.users, train.items) if self.side == "user" else (train.items, train.users)
        order = np.argsort(own, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=len(self.rows)))])
        device = self.rows.device
        return (
            torch.tensor(starts, device=device),
            torch.tensor(other[order], device=device),
            torch.tensor(train.ratings[order], dtype=torch.float64, device=device),
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of training ratings of each row."""
        train = self.posterior.train
        return train.user_counts if self.side == "user" else train.item_counts

    @property
    def beta(self) -> float:
        """Weight of this side's KL in the fit, with how often an iteration counts it."""
        beta = self.posterior.beta[0 if self.side == "user" else 1]
        fit: dict[str, Any] = self.posterior.info.get("settings", {}).get("cross-feedback", {})
        if fit.get("kl_counting") == "per_block":
            other = "item" if self.side == "user" else "user"
            n = self.posterior.n_items if self.side == "user" else self.posterior.n_users
            # A row is in a block with each batch of the other side, into which a fit deals all of its rows.
            beta *= -(-n // CrossFeedback.batch_size(fit.get(f"{other}_batch_size"), n))
        return beta

    def draw(self, rows: Indices, num_samples: int) -> Tensor:
        """Draw rows from q: (num_samples, n, D), factors and, last, the bias; the same in every request."""
        return join(
            *self.posterior.pairs.draw_rows(self.side, rows, np.arange(num_samples), self.seed)
        ).double()

    # ---------------------------------------------------------------- densities

    def log_prior(self, x: Tensor) -> Tensor:
        """Return E log p(x), (S, n), of rows (S, n, D), over the hyperparameters' q: differentiable."""
        k = self.rows.n_factors
        if self.learned_priors is not None:
            return self.learned_priors.log_density(x, 0)
        total = self._site_log_prior(f"{self.side}_factors", x[..., :k])
        if self.posterior.model.biases:
            total = total + self._site_log_prior(f"{self.side}_bias", x[..., -1])
        return total

    def _site_log_prior(self, site: str, values: Tensor) -> Tensor:
        densities = self._prior_densities[site]
        each = [density.log_prob(values) for density in densities]
        return torch.stack(each).mean(0)

    @cached_property
    def _prior_densities(self) -> dict[str, list[Any]]:
        sites = [f"{self.side}_factors"] + [f"{self.side}_bias"] * self.posterior.model.biases
        return {site: self._densities_of(site) for site in sites}

    @torch.no_grad()
    def _densities_of(self, site: str) -> list[Any]:
        prior, n_factors = prior_of(self.posterior, site)
        if not has_hyperparameters(prior, site, n_factors):
            return [prior(site, n_factors)]
        found = []
        with own_generator(self.rows.device) as reseed:
            for draw in range(_HYPER_DRAWS):
                reseed(draw_seed(self.seed, Stream.HYPERPARAMETERS, draw))
                found.append(given_hyperparameters(prior, site, n_factors))
        return found

    def log_likelihood(self, rows: Indices, x: Tensor) -> Tensor:
        """Return the expected log-likelihood of each row's ratings, (S, n), given rows (S, n, D).

        Differentiable in `x`; the expectation is over q of the other side.
        """
        if self.gaussian_likelihood:
            information, linear, constant = self.information(rows)
            square = (x.unsqueeze(-2) @ information).squeeze(-2) * x
            return constant - 0.5 * square.sum(-1) + (x * linear).sum(-1)
        starts, columns, ratings = self._columns
        at = torch.tensor(rows, device=x.device)
        n_draws = x.shape[0]
        cost = n_draws * (_COMMON_DRAWS if self.others.positive is not None else _NODES)
        sizes = starts[at + 1] - starts[at]
        parts: list[Tensor] = []
        for part in _by_size(sizes, max(1, _CELLS // cost)):
            some = at[part]
            counts = starts[some + 1] - starts[some]
            segments = _in_order(counts)
            entry_row = segments.index
            first = torch.cumsum(counts, 0) - counts
            entries = (
                torch.arange(len(entry_row), device=x.device) - first[entry_row] + starts[some][entry_row]
            )
            own = x[:, part]
            total = x.new_zeros(len(some), n_draws)
            # A row of very many ratings is cut too.
            for piece in chunks(len(entries), max(1, _CELLS // cost)):
                values = self._entry_log_likelihood(
                    own, entry_row[piece], columns[entries[piece]], ratings[entries[piece]], rows[part]
                )
                total = add_segments(total, values, segments, piece)
            parts.append(total)
        return torch.cat(parts).T

    def _entry_log_likelihood(
        self, x: Tensor, places: Tensor, columns: Tensor, ratings: Tensor, rows: Indices
    ) -> Tensor:
        """Return (n_entries, S): each rating's expected log-density given its row's draws."""
        likelihood, k = self.posterior.model.likelihood, self.rows.n_factors
        centre = self.posterior.model.predictor_centre.double()
        noise = self._relative(rows, places, columns)
        table = x.permute(2, 1, 0)  # (D, n, S)
        others = self.others
        if others.positive is not None:
            drawn = self._common_draws[:, columns]  # (T, n_entries, D)
            eta = torch.zeros((), dtype=x.dtype, device=x.device)
            for f in range(k):
                eta = eta + table[f].index_select(0, places).unsqueeze(0) * drawn[:, :, f, None]
            if self.posterior.model.biases:
                eta = eta + table[k].index_select(0, places) + drawn[:, :, k, None]
            wide = tuple(one[None, :, None].expand_as(eta) for one in noise)
            return self._log_prob(eta + centre, ratings[None, :, None], wide).mean(0)
        loc, scale = others.loc[columns], others.scale[columns]
        mean = centre + sum(table[f].index_select(0, places) * loc[:, f, None] for f in range(k))
        if self.posterior.model.biases:
            assert others.bias_loc is not None
            mean = mean + table[k].index_select(0, places) + others.bias_loc[columns, None]
        variance = self._variance(table, places, columns, scale)
        closed = likelihood.expected_log_prob(ratings[:, None].expand_as(mean), mean, variance)
        if closed is not None and not noise:
            return closed
        eta, shares = normal_nodes(mean, variance.clamp_min(0.0), _NODES)
        wide = tuple(one[:, None, None].expand_as(eta) for one in noise)
        return (self._log_prob(eta, ratings[:, None, None], wide) * shares).sum(-1)

    def _log_prob(self, eta: Tensor, ratings: Tensor, noise: tuple[Any, ...]) -> Tensor:
        """Return the likelihood's own log-density of ratings, which broadcast against `eta`."""
        likelihood = self.posterior.model.likelihood
        return likelihood.log_prob_of(ratings, eta, *noise)

    def _variance(self, table: Tensor, places: Tensor, columns: Tensor, scale: Tensor) -> Tensor:
        """Return the variance of each entry's predictor given its row's draws, (n_entries, S)."""
        others, k = self.others, self.rows.n_factors
        if others.tril is not None:
            # [u, 1] with the other's covariance over [v, c]: the square of L^T [u, 1].
            drawn = table[:, places].permute(1, 0, 2)  # (n_entries, D, S)
            if self.posterior.model.biases:
                drawn = torch.cat([drawn[:, :k], torch.ones_like(drawn[:, :1])], 1)
            return (others.tril[columns].mT @ drawn).square().sum(1)
        variance = sum(table[f].index_select(0, places) ** 2 * (scale[:, f, None] ** 2) for f in range(k))
        if others.bias_scale is not None:
            variance = variance + others.bias_scale[columns, None] ** 2
        assert isinstance(variance, Tensor)
        return variance

    def _relative(self, rows: Indices, places: Tensor, columns: Tensor) -> tuple[Any, ...]:
        own = torch.tensor(rows, device=places.device)[places]
        noises = [
            side.noise_factor[at]
            for side, at in ((self.rows, own), (self.others, columns))
            if side.noise_factor is not None
        ]
        users, at = (self.rows, own) if self.side == "user" else (self.others, columns)
        return pair_terms(noises, None if users.cuts is None else users.cuts[at])

    @cached_property
    def _common_draws(self) -> Tensor:
        other: Side = "item" if self.side == "user" else "user"
        every = np.arange(len(self.others))
        drawn = self.posterior.pairs.draw_rows(other, every, np.arange(_COMMON_DRAWS), self.seed + 1)
        return join(*drawn).double()

    # ---------------------------------------------------------------- the Gaussian case

    @property
    def gaussian_likelihood(self) -> bool:
        """Whether the expected log-likelihood is quadratic in the row: under Normal noise."""
        return self.posterior.model.likelihood.normal_noise_sd is not None and self.others.positive is None

    @cached_property
    def _products(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the other side's E[f f^T] (m, D, D), E[f] (m, D), E[f c] (m, D) and E[c], E[c^2] (m, 2)."""
        others, k = self.others, self.rows.n_factors
        covariance = others.covariance()
        if not self.posterior.model.biases:
            second = covariance + others.loc.unsqueeze(2) * others.loc.unsqueeze(1)
            nothing = torch.zeros_like(others.loc)
            return second, others.loc, nothing, nothing[:, :1].expand(-1, 2)
        assert others.bias_loc is not None
        loc = torch.cat([others.loc, others.bias_loc[:, None]], 1)
        second = covariance + loc.unsqueeze(2) * loc.unsqueeze(1)
        bias = torch.stack([loc[:, k], second[:, k, k]], 1)
        with_bias = second[:, :, k].clone()
        with_bias[:, k] = loc[:, k]
        mean = loc.clone()
        mean[:, k] = 1.0
        second = second.clone()
        second[:, k, :] = mean
        second[:, :, k] = mean
        return second, mean, with_bias, bias

    def information(self, rows: Indices) -> tuple[Tensor, Tensor, Tensor]:
        """Return A (n, D, D), h (n, D), c (n,): rows' log-likelihoods are c + h.x - x.A x / 2."""
        starts, columns, ratings = self._columns
        at = torch.tensor(rows, device=starts.device)
        counts = starts[at + 1] - starts[at]
        segments = _in_order(counts)
        row = segments.index
        first = torch.cumsum(counts, 0) - counts
        entries = torch.arange(len(row), device=at.device) - first[row] + starts[at][row]
        own = columns[entries]
        of_ratings = self.posterior.model.likelihood.normal_noise_sd
        assert of_ratings is not None
        noise = self._relative(rows, row, own)
        weight = of_ratings.double().detach() ** -2 * torch.ones(
            len(own), dtype=torch.float64, device=at.device
        )
        if noise:
            weight = weight / noise[0] ** 2
        units = self.posterior.model.units
        z = standardised(ratings[entries], units) - self.posterior.model.predictor_centre.double()
        second, mean, with_bias, bias = self._products

        def summed(table: Tensor, weights: Tensor) -> Tensor:
            layout = own.int(), segments.indptr
            return bag_sum(table.contiguous(), *layout, weights.contiguous(), segments.pieces)

        width = mean.shape[1]
        information = summed(second.flatten(1), weight).view(len(at), width, width)
        linear = summed(mean, weight * z) - summed(with_bias, weight)
        square = weight * (z**2 - 2.0 * z * bias[own, 0] + bias[own, 1])
        each = 0.5 * (weight.log() - _LOG_2PI - square) - math.log(units.scale)
        return information, linear, segment_sum(each, segments)

    @cached_property
    def gaussian_prior(self) -> tuple[Tensor, Tensor] | None:
        """Return precision (D, D) and precision times mean (D,) of the prior if it is Normal, else None.

        Found from its log-density: the second derivative at zero, believed if it holds far away.
        """
        if self.rows.positive is not None:
            return None

        def log_prior(x: Tensor) -> Tensor:
            return self.log_prior(x[None, None])[0, 0]

        zero = torch.zeros(self.width, dtype=torch.float64, device=self.rows.device)
        try:
            gradient = torch.func.grad(log_prior)(zero)
            hessian = torch.func.jacrev(torch.func.grad(log_prior))(zero)
        except RuntimeError:  # a density that cannot be differentiated twice is no Normal one
            return None
        far = torch.linspace(-3.0, 2.0, self.width, dtype=torch.float64, device=zero.device)
        expected = log_prior(zero) + far @ gradient + 0.5 * far @ hessian @ far
        found = log_prior(far)
        if not torch.isfinite(expected) or abs(float(found - expected)) > 1e-4 * (1.0 + abs(float(found))):
            return None
        return -hessian, gradient


def _in_order(counts: Tensor) -> Segments:
    """Return rows of so many entries each (n,), one after the other, as segments."""
    indptr = torch.cat([counts.new_zeros(1), torch.cumsum(counts, 0)])
    return Segments.of_indptr(indptr, int(indptr[-1]))


def _by_size(sizes: Tensor, most: int) -> list[slice]:
    """Cut rows into runs whose sizes sum to about `most`: one row's more at the worst."""
    if not len(sizes):
        return []
    run = (torch.cumsum(sizes, 0) - sizes) // most
    edges = torch.cat([run.new_ones(1).bool(), run[1:] != run[:-1]]).nonzero().flatten().tolist()
    return [slice(start, stop) for start, stop in pairwise([*edges, len(sizes)])]
