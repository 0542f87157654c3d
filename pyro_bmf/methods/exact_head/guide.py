r"""The guide with an exact head: what is amortized is a row's prior mean, read from which pairs were rated.

.. math::

   m_i = \mu + n_i^{-1/2} \sum_{j \in N(i)} y_j, \qquad q(y_j) = N(\hat y_j, \mathrm{diag}(s_j^2)), \qquad
   q(w_i \mid \mu, y) = N\left(P_i^{-1} (\Lambda m_i + h_i), P_i^{-1}\right),

with the head of `pyro_bmf.methods.exact_head.head`: the paper's cross feedback of implicit information as a
linear encoder with Bayesian weights, and then, for what a row's own ratings say, no network but the best q
that there is. The encoder reads the mask alone, so a row's own targets are not in its input. Hyperparameters
have conjugate q: a Wishart and a Normal for each side's prior, Gammas for the noise, its multipliers by row
and the weights' precisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ...errors import SettingsError
from ...model.blocks import Block
from ...model.feedback import Feedback
from ...model.fitted import Hyperparameter, NormalRowsGuide, RowPriors
from ...model.likelihoods.normal import Likelihood
from ...model.likelihoods.normal_utilities import Utilities
from ...model.rows import RowPosterior, join
from ...model.sides import SIDES, Side, Sides, TwoSides
from ..kernel import Entries
from .head import Head, Moments, head_of, predictor_variances, with_uncertain_means
from .hyperparameters import SidePriors, sample_prior, weights_gamma
from .rating_terms import RatingTerms, rating_terms

#: Steps of a new row's own utilities and noise.
_LOCAL_STEPS = 15


class HeadSide(nn.Module):
    """One side: the q of its rows' marginals, of the encoder's weights, and of what their prior is made of.

    Attributes
    ----------
    weights : Parameter, shape (n_other, D)
        Means of the weights y; the only numbers that gradients move.
    weights_sd : Tensor, shape (n_other, D)
    weights_precision : Tensor, shape (D,)
        E[lambda].
    location, location_covariance : Tensor, shape (D,) and (D, D)
        Of q(mu).
    precision : Tensor, shape (D, D)
        E[Lambda].
    row_precision_shape : Tensor, shape ()
        a, the shape of the prior of what rows multiply the noise's precision by; a point.
    loc, covariance : Tensor, shape (n, D) and (n, D, D)
        Marginals of the rows; saved with the posterior's rows, not here.
    row_shape, row_rate : Tensor, shape (n,)
        Of the Gamma q of those multipliers; equal where there are none.
    """

    weights_sd: Tensor
    weights_precision: Tensor
    location: Tensor
    location_covariance: Tensor
    precision: Tensor
    row_precision_shape: Tensor
    loc: Tensor
    covariance: Tensor
    row_shape: Tensor
    row_rate: Tensor

    def __init__(self, n: int, n_other: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_other, width))
        self.register_buffer("weights_sd", torch.full((n_other, width), 1e-2))
        self.register_buffer("weights_precision", torch.ones(width))
        self.register_buffer("location", torch.zeros(width))
        self.register_buffer("location_covariance", torch.zeros(width, width))
        self.register_buffer("precision", torch.eye(width))
        self.register_buffer("row_precision_shape", torch.tensor(10.0, dtype=torch.float64))
        self.register_buffer("row_shape", torch.ones(n, dtype=torch.float64))
        self.register_buffer("row_rate", torch.ones(n, dtype=torch.float64))
        self.register_buffer("loc", torch.zeros(n, width), persistent=False)
        self.register_buffer("covariance", torch.zeros(n, width, width), persistent=False)

    @property
    def row_precision(self) -> Tensor:
        """E[w] of the rows' multipliers, (n,), in the rows' dtype."""
        return (self.row_shape / self.row_rate).to(self.loc.dtype)


class ExactHeadGuide(NormalRowsGuide, TwoSides[HeadSide], nn.Module):
    """Normal rows with full covariances about prior means that an encoder gives.

    Parameters
    ----------
    n_users, n_items, n_factors : int
    biases, implicit : bool
        Whether rows have biases, and whether their prior means depend on which pairs were rated.
    row_noise : sequence of str
        The sides whose rows have noise of their own.
    n_cuts : int
        Of an ordered likelihood; 0 for a Normal one.
    uncertain_means : bool
        Whether new rows know how uncertain their prior means are; those of earlier versions do not.

    Attributes
    ----------
    user, item : HeadSide
    noise_precision : Tensor, shape ()
        E[tau], of a rating or utility.
    cuts : Tensor, shape (n_cuts,)
    centre : Tensor, shape ()
    """

    joint_bias = True
    noise_precision: Tensor
    cuts: Tensor
    centre: Tensor

    def __init__(
        self,
        n_users: int,
        n_items: int,
        n_factors: int,
        *,
        biases: bool,
        implicit: bool,
        row_noise: tuple[str, ...] | list[str] = (),
        n_cuts: int = 0,
        uncertain_means: bool = True,
    ) -> None:
        super().__init__()
        self.n_users, self.n_items, self.n_factors = n_users, n_items, n_factors
        self.uncertain_means = uncertain_means
        self.biases, self.implicit, self.n_cuts = biases, implicit, n_cuts
        self.row_noise = tuple(row_noise)
        width = n_factors + biases
        self.user = HeadSide(n_users, n_items if implicit else 0, width)
        self.item = HeadSide(n_items, n_users if implicit else 0, width)
        self.register_buffer("noise_precision", torch.ones((), dtype=torch.float64))
        self.register_buffer("cuts", torch.zeros(n_cuts, dtype=torch.float64))
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))
        self._utilities: Utilities | None = None
        self._draws_cuts = False
        self._attached: Sides[RowPosterior] | None = None
        self._priors: Sides[SidePriors] | None = None

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this guide's shape by `from_settings`, as plain values."""
        return {
            "kind": "exact-head",
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_factors": self.n_factors,
            "biases": self.biases,
            "implicit": self.implicit,
            "row_noise": list(self.row_noise),
            "n_cuts": self.n_cuts,
            **({"uncertain_means": True} if self.uncertain_means else {}),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> ExactHeadGuide:
        """Build a guide of a saved shape; its tensors are to be loaded into it."""
        given = {"uncertain_means": False, **settings}
        del given["kind"]
        return cls(**given)

    def attach(self, users: Any, items: Any, likelihood: Likelihood) -> None:
        """Put the rows' marginals and the likelihood in place, by which new rows are given theirs."""
        self.attach_likelihood(likelihood)
        refusal = "An exact head needs Normal rows, and these are draws of a chain."
        self._attached = Sides(users.normals(refusal), items.normals(refusal))
        for side, rows in self._attached.by_side():
            own = self.of(side)
            own.loc, own.covariance = join(rows.loc, rows.bias_loc), rows.covariance()

    def attach_likelihood(self, likelihood: Likelihood) -> None:
        """Put the likelihood in place."""
        self._utilities = likelihood.utilities()
        self._draws_cuts = likelihood.drawn and self.n_cuts > 0

    # ---------------------------------------------------------------- the encoder and the head

    def moments(self, side: Side) -> Moments:
        """Return what rows of a side are told of the other one."""
        other = self.opposite(side)
        return Moments.of(other.loc, other.covariance, other.row_precision, biases=self.biases)

    def encode_means(self, side: Side, entries: Entries) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the rows' prior means (location's variance apart), both (n, D)."""
        own = self.of(side)
        location = own.location.expand(entries.n_rows, -1)
        if not self.implicit:
            return location, torch.zeros_like(location)
        variance = entries.sum(own.weights_sd**2) * entries.root_counts.unsqueeze(-1) ** 2
        return entries.means(own.weights) + location, variance

    def rows(self, side: Side, head: Head, entries: Entries) -> tuple[Tensor, Tensor]:
        """Return the marginals of rows with this head: means (n, D), covariances (n, D, D)."""
        mean, variance = self.encode_means(side, entries)
        return head.mean(mean), head.covariance(variance, self.of(side).location_covariance)

    def posterior(
        self, loc: Tensor, covariance: Tensor, shape: Tensor | None, rate: Tensor | None
    ) -> RowPosterior:
        """Return rows of these moments and noise multipliers (None for none) as what predicts."""
        scale, tril = covariance.diagonal(dim1=1, dim2=2).sqrt(), _root(covariance)
        factor = log_sd = None
        if shape is not None and rate is not None:
            # The Normal of the logarithm with the Gamma's moments.
            factor = (-0.5 * (torch.digamma(shape) - rate.log())).exp().to(loc.dtype)
            log_sd = (0.5 * torch.polygamma(1, shape).sqrt()).to(loc.dtype)
        if not self.biases:
            return RowPosterior(loc, scale, tril=tril, noise_factor=factor, noise_factor_log_sd=log_sd)
        return RowPosterior(
            loc[:, :-1], scale[:, :-1], loc[:, -1], scale[:, -1],
            tril=tril, noise_factor=factor, noise_factor_log_sd=log_sd,
        )  # fmt: skip

    def known_rows(self, side: Side) -> RowPosterior:
        """Return the training rows' q."""
        own = self.of(side)
        noisy = side in self.row_noise
        return self.posterior(
            own.loc, own.covariance, *((own.row_shape, own.row_rate) if noisy else (None, None))
        )

    def training_rows(self, side: Side, feedback: Feedback) -> RowPosterior:
        """Return the rows that were trained: those of the posterior, once there is one."""
        del feedback
        return self.known_rows(side) if self._attached is None else self._attached.of(side)

    def row_priors(self, side: Side, feedback: Feedback) -> RowPriors:
        """Return the Normal prior of rows about what the encoder says of their masks, at its mean."""
        own = self.of(side)
        mean, _ = self.encode_means(side, Entries.of(feedback, own.loc.dtype))
        precision, mean = own.precision.double(), mean.detach().double()
        return RowPriors(lambda draw: (precision, mean), shared=not self.implicit)

    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        """Return none: they have their q, not draws."""
        return {}

    @torch.no_grad()
    def encode_side(self, side: Side, feedback: Feedback) -> RowPosterior:
        """Return q of new rows: their priors, then the head, their own utilities and noise."""
        own, noisy = self.of(side), side in self.row_noise
        entries, other = Entries.of(feedback, own.loc.dtype), self.moments(side)
        values = feedback.values.to(own.loc.dtype)
        unknown, observed = self._observe(values)
        shape = rate = own.row_precision_shape.expand(entries.n_rows)
        target, share = values, None
        loc, covariance, eta = values, values, values  # until the first step
        prior_mean, variance = self.encode_means(side, entries)
        marginal = self.uncertain_means and self.implicit
        prior = own.precision
        if marginal:
            prior = with_uncertain_means(prior, variance, own.location_covariance)
        for step in range(1 + (_LOCAL_STEPS if unknown.latent or noisy else 0)):
            row_precision = (self.noise_precision * shape / rate).to(values.dtype)
            if step:
                precision = entries.at_rows(row_precision) * entries.at_columns(other.precision)
                terms = rating_terms(unknown, self.cuts - self.centre, eta, precision, observed)
                target, share = terms.target, terms.share
                if noisy:
                    squares = noise_squares(other, entries, terms, loc, covariance, eta)
                    shape = own.row_precision_shape + 0.5 * entries.indptr.diff().double()
                    rate = own.row_precision_shape + 0.5 * self.noise_precision * squares
                    row_precision = (self.noise_precision * shape / rate).to(values.dtype)
            head = head_of(other, entries, target, share, prior, row_precision)
            loc, covariance = head.marginals(prior_mean) if marginal else self.rows(side, head, entries)
            eta = other.predictors(loc, entries)
        return self.posterior(loc, covariance, *((shape, rate) if noisy else (None, None)))

    def _observe(self, values: Tensor) -> tuple[Utilities, Tensor]:
        """Return the utilities, and what ratings less the centre tell of them."""
        if self._utilities is None:
            raise SettingsError("The likelihood is not attached: load or make the posterior as a whole.")
        unknown = self._utilities
        return unknown, unknown.observe(values + self.centre.to(values)) if unknown.latent else values

    # ---------------------------------------------------------------- in Pyro

    def best_reply(self, side: Side, feedback: Feedback, beta: float = 1.0) -> tuple[Entries, Head]:
        """Return the head of a side's training rows at the present state of everything else."""
        own, other = self.of(side), self.moments(side)
        entries = Entries.of(feedback, own.loc.dtype)
        values = feedback.values.to(own.loc.dtype)
        unknown, observed = self._observe(values)
        row_precision = self.noise_precision.to(values.dtype) * own.row_precision
        precision = entries.at_rows(row_precision) * entries.at_columns(other.precision)
        eta = other.predictors(own.loc, entries)
        terms = rating_terms(unknown, self.cuts - self.centre, eta, precision, observed)
        return entries, head_of(
            other, entries, terms.target, terms.share, own.precision, row_precision / beta
        )

    def know(self, priors: Sides[SidePriors]) -> None:
        """Be told of the model's priors, whose q `forward` samples."""
        self._priors = priors

    def forward(self, block: Block, *, beta: tuple[float, float]) -> None:
        """Sample hyperparameters, then each side's weights and rows, of a block that holds all rows.

        In outline, for the users::

            y = sample("user_weights", Normal(weights, weights_sd))
            m = location + y summed over what each user has rated, by the root of their number
            with plate("users"):
                u, b = sample("user_factors", "user_bias", Normal(P^-1 (Lambda m + h), P^-1))

        Parameters
        ----------
        block : Block
            Of all users and items.
        beta : tuple of float
            Weights of the users' and the items' KL (Eq. 7).
        """
        with poutine.scale(scale=block.global_weight):
            locations = Sides(*(self._sample_prior(side) for side in SIDES))
            means = Sides(*(self._sample_means(side, block, locations.of(side)) for side in SIDES))
            for side in SIDES:
                if side not in self.row_noise:
                    continue
                point = dist.Delta(self.of(side).row_precision_shape)  # type: ignore[no-untyped-call]
                pyro.sample(f"{side}_noise_shape", point)
            if self._draws_cuts:
                pyro.sample("cuts", dist.Delta(self.cuts, event_dim=1))  # type: ignore[no-untyped-call]
        for side, weight in zip(SIDES, beta, strict=True):
            self.sample_rows(side, block, means.of(side), beta=weight)

    def _sample_prior(self, side: Side) -> Tensor:
        if self._priors is None:
            raise SettingsError("The guide does not know the model's priors: make it by a fit.")
        own = self.of(side)
        return sample_prior(
            side, self._priors.of(side), own.location, own.location_covariance, own.precision, len(own.loc)
        )

    def _sample_means(self, side: Side, block: Block, location: Tensor) -> Tensor:
        """Sample a side's weights, and return its rows' prior means, (n, D)."""
        own, feedback = self.of(side), _feedback(block, side)
        if not self.implicit:
            return location.expand(feedback.n_rows, -1)
        pyro.sample(
            f"{side}_weights_precision",
            weights_gamma(own.weights_precision, len(own.weights)).to_event(1),  # type: ignore[no-untyped-call]
        )
        q = dist.Normal(own.weights, own.weights_sd).to_event(2)  # type: ignore[no-untyped-call]
        return Entries.of(feedback, own.loc.dtype).means(pyro.sample(f"{side}_weights", q)) + location

    def sample_rows(self, side: Side, block: Block, means: Tensor, *, beta: float) -> None:
        """Sample a side's rows from the head's best reply to the other side's marginals."""
        weight = block.user_weight if side == "user" else block.item_weight
        _, head = self.best_reply(side, _feedback(block, side), beta)
        loc = head.mean(means)
        covariance = head.conditional.covariance()
        k = self.n_factors
        with pyro.plate(f"{side}s", len(loc)), poutine.scale(scale=beta * weight):
            factors = pyro.sample(
                f"{side}_factors", dist.MultivariateNormal(loc[:, :k], covariance[:, :k, :k])
            )
            if self.biases:
                # The bias given the factors.
                cross = covariance[:, k, :k].unsqueeze(-1)
                solved = torch.linalg.solve(covariance[:, :k, :k], cross).squeeze(-1)
                mean = loc[:, k] + (solved * (factors - loc[:, :k])).sum(-1)
                variance = covariance[:, k, k] - (solved * cross.squeeze(-1)).sum(-1)
                pyro.sample(f"{side}_bias", dist.Normal(mean, variance.sqrt()))
            if side in self.row_noise:
                own = self.of(side)
                pyro.sample(f"{side}_noise", dist.Gamma(own.row_shape, own.row_rate))


def noise_squares(
    other: Moments, entries: Entries, terms: RatingTerms, loc: Tensor, covariance: Tensor, eta: Tensor
) -> Tensor:
    r"""Return :math:`\sum_j w'_j E[(z_{ij} - \eta_{ij})^2]` of every row, (n,), float64.

    A predictor that is uncertain moves with its utility: of its variance the share :math:`\rho^2` is left.
    """
    weight = None if terms.share is None else terms.share**2
    own = entries.row_sums((entries.at_columns(other.precision) * terms.squares).double())
    return own + predictor_variances(other, entries, weight, loc, covariance, eta)


def _feedback(block: Block, side: Side) -> Feedback:
    return block.user_feedback if side == "user" else block.item_feedback


def _root(covariance: Tensor) -> Tensor:
    root: Tensor = torch.linalg.cholesky(covariance)
    return root
