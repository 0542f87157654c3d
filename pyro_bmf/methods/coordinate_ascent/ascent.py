r"""Coordinate ascent: each step is the best q of one block given all others, so the ELBO never falls.

One iteration updates utilities (ordered probit), users, items, then, by maximising the same bound, the
scales of the priors (empirical Bayes), the noise (Normal) and the cuts (ordered probit). The bound is

.. math:: \sum_{ij} E_q[\log p(x_{ij} \mid \eta_{ij})] - \sum_i KL(q(u_i) \| p) - \sum_j KL(q(v_j) \| p),

with :math:`E_q[\log p] = \log P(\text{cell} \mid E\eta) - \mathrm{var}(\eta) / 2 s^2` at the best
truncated-Normal q of an ordered probit's utility. Beta is one here: the bound is one on the evidence.

With rows at a point (`point`) the same steps climb log p(x, U, V), the KL being minus the log-density of the
priors there: alternating least squares, as in PMF (Mnih and Salakhutdinov 2008).
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from ...data.ratings import Ratings
from ...errors import SettingsError
from ...model import FactorizationModel
from ...model.priors.normal import Prior
from ...model.sides import SIDES, Side, Sides
from ..kernel import Entries
from ..training_feedback import training_feedback
from .guide import POINT_SCALE, ConjugateGuide

#: Iterations before the priors' scales move: a bound that is far from its height prefers no factors at all.
_FIXED_SCALES = 5

#: Largest standard deviation of the starting means: predictors far off have no cells to fit cuts by.
_START = 0.3


class Ascent:
    """Coordinate ascent of one model on one set of training ratings.

    Parameters
    ----------
    model : FactorizationModel
        With Normal priors and a Normal or ordered probit likelihood; started.
    train : Ratings
    seed : int
        Of the starting means.
    dtype : torch.dtype
    point : bool
        Whether rows are at their mode, under priors that stay as they are; otherwise the priors' scales are
        learned.

    Raises
    ------
    SettingsError
        If the model has another prior or likelihood.
    """

    def __init__(
        self,
        model: FactorizationModel,
        train: Ratings,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        point: bool = False,
    ) -> None:
        check_conjugate(model)
        utilities = model.likelihood.utilities()
        assert utilities is not None  # as checked
        self.unknown = utilities
        self.model, self.device, self.dtype = model, device, dtype
        feedback = training_feedback(train, device, torch.float64)
        self.entries = Sides(Entries.of(feedback, dtype), Entries.of_transpose(feedback, dtype))
        self.item_order = feedback.t_order
        centre = float(model.centre)
        self.values = feedback.values - centre
        self.guide = ConjugateGuide(
            train.n_users,
            train.n_items,
            model.n_factors,
            biases=model.biases,
            n_cuts=utilities.n_cuts,
            point=point,
        ).to(device)
        self.guide.user.to(dtype)
        self.guide.item.to(dtype)
        self.guide.cuts.copy_(utilities.start_cuts())
        # Predictors here lack the centre, and so must ratings that are their own utilities.
        self.observed = utilities.observe(feedback.values) if utilities.latent else self.values
        # The noise of latent utilities is a convention, and so given like one that is fixed.
        given = None if utilities.learned_noise else model.likelihood.noise_sd
        noise_sd = 0.9 * float(train.ratings.std()) if given is None else float(given)
        self.guide.noise_precision.fill_(max(noise_sd, 1e-3) ** -2)
        self.guide.centre.fill_(centre)
        generator = torch.Generator().manual_seed(seed)
        for rows, prior, bias in (
            (self.guide.user, model.user_prior, model.user_bias_prior),
            (self.guide.item, model.item_prior, model.item_bias_prior),
        ):
            scales = [prior.scale] * model.n_factors + ([] if bias is None else [bias.scale])
            rows.prior_precision.copy_(torch.tensor(scales) ** -2.0)
            rows.loc.copy_(torch.randn(rows.loc.shape, generator=generator) * min(prior.scale, _START))
            rows.covariance.mul_(POINT_SCALE**2 if point else 0.01)
        self.utilities = self.values
        self.iterations = 0

    @torch.no_grad()
    def iteration(self) -> dict[str, float]:
        """Update every block once and return the bound and its parts, nats."""
        begun = time.perf_counter()
        guide, unknown, centre = self.guide, self.unknown, self.guide.centre
        if unknown.latent:
            eta, noise_sd = self._predictors(), guide.noise_precision.rsqrt()
            cuts = unknown.fit_cuts(guide.cuts - centre, eta, noise_sd, self.observed, steps=2)
            guide.cuts.copy_(cuts + centre)
            self.utilities = unknown.expect(guide.cuts - centre, eta, noise_sd, self.observed)[0]
        self._update("user")
        self._update("item")
        self.iterations += 1
        if not guide.point and self.iterations > _FIXED_SCALES:
            for side in SIDES:
                self._update_prior(side)
        total = self._square("item")
        if unknown.learned_noise:
            guide.noise_precision.fill_(len(self.values) / total)
        eta = self._predictors()
        variance = total - float(((self.utilities - eta) ** 2).sum())
        log_prob = unknown.expect(guide.cuts - centre, eta, guide.noise_precision.rsqrt(), self.observed)[1]
        log_likelihood = float(log_prob.sum()) - 0.5 * float(guide.noise_precision) * variance
        log_likelihood += float(unknown.cut_density.log_density(guide.cuts - centre))
        kl = {side: self._kl(side) for side in SIDES}
        return {
            "elbo": log_likelihood - kl["user"] - kl["item"],
            "log_likelihood": log_likelihood,
            "kl_user": kl["user"],
            "kl_item": kl["item"],
            "noise": float(self.guide.noise_precision.rsqrt()),
            "seconds": time.perf_counter() - begun,
        }

    def _predictors(self) -> Tensor:
        """Return E[eta] less the centre of every rating, in the users' order, float64."""
        return self.guide.predictors(self.guide.user.loc, self.entries.user, "user").double()

    def _targets(self, side: Side) -> Tensor:
        values = self.utilities if side == "user" else self.utilities.index_select(0, self.item_order)
        return values.to(self.dtype)

    def _update(self, side: Side) -> None:
        found, _ = self.guide.conditional(side, self.entries.of(side), self._targets(side))
        rows = self.guide.of(side)
        rows.loc.copy_(found.mean(torch.zeros_like(rows.loc[0])))
        rows.covariance.copy_(self.guide.covariance(found))

    def _update_prior(self, side: Side) -> None:
        rows = self.guide.of(side)
        second = rows.loc.double() ** 2 + rows.covariance.diagonal(dim1=1, dim2=2).double()
        prior = rows.prior_precision
        k = self.model.n_factors
        # One scale for all factors: a rotation of the factors leaves it as it is.
        prior[:k] = 1.0 / second[:, :k].mean().clamp_min(1e-8)
        if self.model.biases:
            prior[k] = 1.0 / second[:, k].mean().clamp_min(1e-8)

    def _square(self, side: Side) -> float:
        """Return the sum over ratings of E[(z - eta)^2], z at its mean."""
        entries = self.entries.of(side)
        mean, products, with_bias, bias = self.guide.features(side)
        z = self._targets(side).double()
        rows, other = self.guide.of(side), self.guide.opposite(side)
        loc = rows.loc.double()
        second = rows.covariance.double() + loc.unsqueeze(2) * loc.unsqueeze(1)
        at = entries.indices.long()
        total = ((z - bias.double()[at]) ** 2).sum()
        if self.model.biases:
            total = total + other.covariance[:, -1, -1].double()[at].sum()
        linear = entries.sum(mean.double(), z) - entries.sum(with_bias.double())
        information = entries.sum(products.double()).view_as(second)
        return float(total - 2.0 * (loc * linear).sum() + (information * second).sum())

    def _kl(self, side: Side) -> float:
        rows = self.guide.of(side)
        loc, covariance = rows.loc.double(), rows.covariance.double()
        prior = rows.prior_precision.double()
        n, width = loc.shape
        if self.guide.point:
            log_density = 0.5 * (n * (prior / (2.0 * math.pi)).log().sum() - (loc**2 * prior).sum())
            return -float(log_density)
        second = covariance.diagonal(dim1=1, dim2=2) + loc**2
        log_determinant = torch.logdet(covariance).sum()
        return float(0.5 * ((second * prior).sum() - n * width - n * prior.log().sum() - log_determinant))

    def remember(self) -> None:
        """Put learned noise and cuts into the model's likelihood."""
        self.unknown.remember(self.guide.cuts, self.guide.noise_precision.rsqrt())

    def finish(self) -> None:
        """Put everything that was learned into the model."""
        model, user, item = self.model, self.guide.user.prior_precision, self.guide.item.prior_precision
        model.user_prior = self._learned(model.user_prior, user[0])
        model.item_prior = self._learned(model.item_prior, item[0])
        if model.user_bias_prior is not None and model.item_bias_prior is not None:
            model.user_bias_prior = self._learned(model.user_bias_prior, user[-1])
            model.item_bias_prior = self._learned(model.item_bias_prior, item[-1])
        self.remember()
        self.model.requires_grad_(False)

    def _learned(self, prior: Prior, precision: Tensor) -> Prior:
        found = prior.rescaled(float(precision) ** -0.5)
        assert found is not None  # as checked
        return found.to(self.device)


def check_conjugate(model: FactorizationModel) -> None:
    """Refuse a model that coordinate ascent has no step for.

    Raises
    ------
    SettingsError
        If a prior is not Normal about zero, or the likelihood neither Normal nor an ordered probit.
    """
    for prior in (model.user_prior, model.item_prior, model.user_bias_prior, model.item_bias_prior):
        if prior is not None and prior.rescaled(1.0) is None:
            raise SettingsError(
                f"Coordinate ascent needs Normal priors, and there is a {type(prior).__name__}: give those, "
                "or choose the method cross-feedback."
            )
        if prior is not None and prior.origin != 0.0:
            raise SettingsError(
                "Coordinate ascent needs priors about zero, and there is one with another mean: leave loc "
                "out, or choose the method cross-feedback."
            )
    if model.row_noise is not None or model.row_cuts is not None:
        raise SettingsError(
            "Coordinate ascent has no noise or cut points of rows' own: leave them out, or choose "
            "the method cross-feedback."
        )
    if model.likelihood.utilities() is None:
        raise SettingsError(
            f"Coordinate ascent needs a Normal or ordered probit likelihood, not "
            f"{type(model.likelihood).__name__}: give one of those, or choose the method cross-feedback."
        )
