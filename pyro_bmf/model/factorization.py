r"""The generative model: Bayesian matrix factorization as a Pyro model.

.. math::

   u_i \sim p(u), \quad v_j \sim p(v), \quad
   \eta_{ij} = u_i \cdot v_j \; (+ \mu + b_i + c_j), \quad x_{ij} \sim \mathrm{Likelihood}(\eta_{ij})

for the observed entries only. Sites: ``user_factors``, ``user_bias`` (plate ``users``), ``item_factors``,
``item_bias`` (plate ``items``) and ``rating`` (plate ``ratings``). Plates carry no scale: a block brings the
weights with which the blocks of an iteration sum to Eq. 7, and beta weighs KL, never ratings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from ..data.units import AS_GIVEN, Units
from ..errors import SettingsError
from ..numerics.segment_sums import gather_entries
from .blocks import Block
from .catalogue import likelihood_from_settings, prior_from_settings
from .implicit_feedback import ImplicitFeedback
from .likelihoods.normal import Likelihood, NormalLikelihood
from .pair_terms import Relative, pair_terms
from .priors.normal import NormalPrior, Prior
from .row_cuts import RowCuts
from .row_noise import RowNoise
from .sides import Side, Sides


class FactorizationModel(nn.Module):
    """Matrix factorization with given priors and a given likelihood.

    Parameters
    ----------
    n_factors : int
        K.
    user_prior, item_prior : Prior
        Of the factors; N(0, 1) when not given.
    likelihood : Likelihood
        Of a rating; Normal with learned noise when not given.
    biases : bool
        Whether users and items have biases.
    centred : bool
        Whether the mean training rating is part of the predictor (and subtracted from what encoders read).
    user_bias_prior, item_bias_prior : Prior
        Of the biases, where there are any; N(0, 1) when not given.
    implicit : ImplicitFeedback, optional
        Prior means of rows that depend on which pairs were rated (SVD++ on both sides).
    row_noise : RowNoise, optional
        Noise of their own for users, items or both.
    """

    centre: Tensor

    def __init__(
        self,
        n_factors: int,
        *,
        user_prior: Prior | None = None,
        item_prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        biases: bool = True,
        centred: bool = True,
        user_bias_prior: Prior | None = None,
        item_bias_prior: Prior | None = None,
        implicit: ImplicitFeedback | None = None,
        row_noise: RowNoise | None = None,
    ) -> None:
        super().__init__()
        if n_factors < 1:
            raise SettingsError(f"n_factors is {n_factors}: give 1 or more.")
        self.n_factors = n_factors
        self.biases = biases
        self.centred = centred
        self.user_prior = NormalPrior() if user_prior is None else user_prior
        self.item_prior = NormalPrior() if item_prior is None else item_prior
        self.likelihood = NormalLikelihood() if likelihood is None else likelihood
        self.user_bias_prior = self.item_bias_prior = None
        if biases:
            self.user_bias_prior = NormalPrior() if user_bias_prior is None else user_bias_prior
            self.item_bias_prior = NormalPrior() if item_bias_prior is None else item_bias_prior
        self.implicit, self.row_noise = implicit, row_noise
        self.row_cuts = RowCuts(self.likelihood.n_shifts) if self.likelihood.n_shifts else None
        self.register_buffer("centre", torch.zeros(()))
        self.units = AS_GIVEN
        self._check_priors()
        for _, prior, width in self.row_priors():
            prior.prepare(width)

    def _check_priors(self) -> None:
        """Refuse priors that do not go together, or with the likelihood."""
        priors = [prior for _, prior, _ in self.row_priors()]
        learned = [prior for prior in priors if prior.learned]
        if len({id(prior) for prior in learned}) < len(learned):
            raise SettingsError(
                "One prior object with learned hyperparameters was given twice: make one for each side, and "
                "one for each bias."
            )
        for prior in (self.user_bias_prior, self.item_bias_prior):
            if prior is not None and prior.positive:
                raise SettingsError(
                    f"A bias has a {type(prior).__name__}, which is positive: give biases a prior on all "
                    "numbers, or leave them out (biases=False)."
                )
        positive = [self.user_prior.positive, self.item_prior.positive]
        if self.implicit is not None and any(positive):
            raise SettingsError(
                "Implicit feedback shifts priors' means, which positive factors do not allow."
            )
        if self.likelihood.needs_positive_predictor and (not all(positive) or self.biases or self.centred):
            raise SettingsError(
                "A likelihood with link 'identity' needs positive predictors: give users and items positive "
                "priors (gamma or log-normal), without biases and without centring (biases=False, "
                "centred=False); or choose the link softplus."
            )

    @property
    def noisy_sides(self) -> tuple[Side, ...]:
        """The sides whose rows have noise of their own."""
        return () if self.row_noise is None else self.row_noise.sides

    def start(self, ratings: Any) -> None:
        """Check the training ratings against the likelihood and take centre and noise's start from them.

        Raises
        ------
        DataError
            If a rating is outside the likelihood's support.
        """
        self.likelihood.check(ratings)
        self.likelihood.start(ratings)
        self.centre.fill_(float(ratings.mean()) if self.centred else 0.0)

    @property
    def predictor_centre(self) -> Tensor:
        """What every predictor starts from: the link of the mean training rating, or 0 where not centred."""
        return self.likelihood.predictor_centre(self.centre) if self.centred else self.centre

    def finish_in(self, units: Units) -> None:
        """Say that the model was fitted in standard units, which its likelihood then converts to ratings.

        Predictors, priors, centre, noise and cut points stay in standard units.
        """
        self.likelihood.finish_in(units)
        self.units = units

    def row_priors(self) -> Iterator[tuple[str, Prior, int | None]]:
        """Give (site, prior, factors) of every factor and bias, in the order of sampling."""
        yield "user_factors", self.user_prior, self.n_factors
        if self.user_bias_prior is not None:
            yield "user_bias", self.user_bias_prior, None
        yield "item_factors", self.item_prior, self.n_factors
        if self.item_bias_prior is not None:
            yield "item_bias", self.item_bias_prior, None

    def forward(self, block: Block, *, beta: tuple[float, float]) -> None:
        """Sample a block's rows from their priors and its ratings from the likelihood.

        In outline, with users' and items' biases::

            with plate("users"):
                u, b = sample("user_factors", prior), sample("user_bias", prior)
            with plate("items"):
                v, c = sample("item_factors", prior), sample("item_bias", prior)
            with plate("ratings"):
                sample("rating", likelihood(centre + u[i] @ v[j] + b[i] + c[j]), obs=ratings)

        Parameters
        ----------
        block : Block
        beta : tuple of float
            Weights of the users' and the items' KL (Eq. 7).
        """
        with poutine.scale(scale=block.global_weight):
            priors = self._row_priors(block)
            likelihood = self.likelihood.sampled(self.predictor_centre)
        with pyro.plate("users", len(block.users)), poutine.scale(scale=beta[0] * block.user_weight):
            user = {site: pyro.sample(site, prior) for site, prior in priors.user.items()}
        with pyro.plate("items", len(block.items)), poutine.scale(scale=beta[1] * block.item_weight):
            item = {site: pyro.sample(site, prior) for site, prior in priors.item.items()}
        if not len(block.ratings):
            return  # sparse data have blocks without ratings, and Pyro has no plate of size zero
        i, j = block.rating_segments.user, block.rating_segments.item
        u, v = gather_entries(user["user_factors"], i, -2), gather_entries(item["item_factors"], j, -2)
        b = gather_entries(user["user_bias"], i, -1) if self.biases else None
        c = gather_entries(item["item_bias"], j, -1) if self.biases else None
        terms = self._terms(user | item, block)
        with pyro.plate("ratings", len(block.ratings)):
            pyro.sample("rating", likelihood(self.predictor(u, v, b, c), *terms), obs=block.ratings)

    def _row_priors(self, block: Block) -> Sides[dict[str, TorchDistribution]]:
        """Sample all hyperparameters, and return the priors of a block's rows given them, by site."""
        priors = {site: prior(site, n_factors) for site, prior, n_factors in self.row_priors()}
        if self.implicit is not None:
            priors = self.implicit.shift(priors, block, self.n_factors)
        if self.row_noise is not None:
            priors |= self.row_noise.priors()
        if self.row_cuts is not None:
            priors |= self.row_cuts.priors()
        users = {site: prior for site, prior in priors.items() if site.startswith("user")}
        return Sides(users, {site: prior for site, prior in priors.items() if site not in users})

    def _terms(self, values: dict[str, Tensor], block: Block) -> tuple[Relative, ...]:
        """Return what a block's ratings bring to the likelihood beside their predictors."""
        factors = []
        if self.row_noise is not None:
            factors.append(self.row_noise.factors(values, block.rating_segments))
        shifts = None
        if self.row_cuts is not None:
            shifts = gather_entries(values["user_cuts"], block.rating_segments.user, -2)
        return pair_terms(factors, shifts)

    def guide(self, block: Block) -> None:
        """Sample the priors' hyperparameters, where there are any, from their variational posteriors."""
        with poutine.scale(scale=block.global_weight):
            for site, prior, n_factors in self.row_priors():
                prior.guide(site, n_factors)
            if self.row_noise is not None:
                self.row_noise.guide()
            if self.row_cuts is not None:
                self.row_cuts.guide()

    def predictor(
        self,
        user_factors: Tensor,
        item_factors: Tensor,
        user_bias: Tensor | None = None,
        item_bias: Tensor | None = None,
    ) -> Tensor:
        """Return eta of pairs given their factors (…, n, n_factors) and biases (…, n)."""
        eta = (user_factors * item_factors).sum(-1) + self.predictor_centre
        if user_bias is not None and item_bias is not None:
            eta = eta + user_bias + item_bias
        return eta

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this model's shape by `from_settings`, as plain values."""

        def of(prior: Prior | None) -> dict[str, Any] | None:
            return None if prior is None else prior.settings()

        return {
            "n_factors": self.n_factors,
            "biases": self.biases,
            "centred": self.centred,
            "user_prior": of(self.user_prior),
            "item_prior": of(self.item_prior),
            "user_bias_prior": of(self.user_bias_prior),
            "item_bias_prior": of(self.item_bias_prior),
            "likelihood": self.likelihood.settings(),
            "implicit": None if self.implicit is None else self.implicit.settings(),
            "row_noise": None if self.row_noise is None else self.row_noise.settings(),
            "units": self.units.to_dict(),
        }

    @classmethod
    def from_settings(
        cls,
        settings: dict[str, Any],
        *,
        priors: dict[str, type[Prior]] | None = None,
        likelihoods: dict[str, type[Likelihood]] | None = None,
    ) -> FactorizationModel:
        """Build a model from saved settings; a user's own priors and likelihoods are given by kind."""

        def of(name: str) -> Prior | None:
            return None if settings[name] is None else prior_from_settings(settings[name], priors)

        model = cls(
            settings["n_factors"],
            user_prior=of("user_prior"),
            item_prior=of("item_prior"),
            likelihood=likelihood_from_settings(settings["likelihood"], likelihoods),
            biases=settings["biases"],
            centred=settings["centred"],
            user_bias_prior=of("user_bias_prior"),
            item_bias_prior=of("item_bias_prior"),
            # Files written before these existed lack them.
            implicit=ImplicitFeedback(**settings["implicit"]) if settings.get("implicit") else None,
            row_noise=RowNoise(**settings["row_noise"]) if settings.get("row_noise") else None,
        )
        if settings.get("units"):
            # Levels are saved by their own values already.
            model.units = model.likelihood.units = Units.from_dict(settings["units"])
        return model
