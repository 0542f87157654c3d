r"""Eq. 7, a block at a time: Pyro's ELBO with weighted KL, and its parts by name.

Summed over the blocks of an iteration this is the negative of

.. math::

   E_q[\log p(X \mid U, V)] - \beta_u \sum_i KL(q(u_i) \| p(u_i)) - \beta_v \sum_j KL(q(v_j) \| p(v_j)).

The weights sit on the latent sites of the model *and* of the guide: Pyro's mean-field ELBO multiplies the
analytic KL by the guide's scale alone, and the sampled one needs both.

Where the likelihood knows its expectation under a predictor of known moments, that takes the place of the
drawn log-likelihood (``closed-form``): model and guide stay what they are, and the loss has no noise of its
own. Rows being independent under q, the moments of eta are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any, Literal, cast

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ...errors import SettingsError
from ...model import FactorizationModel
from ...model.blocks import Block, drop_entries, hide_block
from .composite_prior import CompositePriors
from .covariance import full_tril
from .guide import CrossFeedbackGuide

ElboKind = Literal["mean-field", "trace", "closed-form"]

#: Smallest KL weight: a scale of zero is refused by Pyro, and a warm-up starts here.
SMALLEST_BETA = 1e-6

_SIDES = ("user", "item")
_PARTS = ("factors", "bias", "noise", "cuts")


class Objective(nn.Module):
    """Negative ELBO of a block, divided by nothing: the blocks of an iteration sum to Eq. 7.

    Parameters
    ----------
    model : FactorizationModel
    guide : CrossFeedbackGuide
    elbo : {"mean-field", "trace", "closed-form"}
        Analytic KL, or log q - log p at the samples, or analytic KL and expected log-likelihood.
    num_particles : int
        Draws of the latent variables a step.
    composite : CompositePriors, optional
        In the place of the model's own priors of the factors.

    Raises
    ------
    SettingsError
        If the closed form is asked for and the likelihood has none.
    """

    def __init__(
        self,
        model: FactorizationModel,
        guide: CrossFeedbackGuide,
        *,
        elbo: ElboKind = "mean-field",
        num_particles: int = 1,
        composite: CompositePriors | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.guide = guide
        self.composite = composite
        self.elbo, self.num_particles = elbo, num_particles
        self._elbo: _MeanFieldParts | _TraceParts
        if elbo == "closed-form":
            _check_closed_form(model)
            self._elbo = _ClosedFormParts(model, num_particles=num_particles)
        else:
            kind = _MeanFieldParts if elbo == "mean-field" else _TraceParts
            self._elbo = kind(num_particles=num_particles)

    def forward(self, block: Block, *, beta: tuple[float, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the differentiable loss and its parts.

        Returns
        -------
        loss : Tensor, scalar
            Negative weighted ELBO of the block, in nats.
        parts : dict
            ``log_likelihood`` and one ``kl_…`` a latent site: in nats, KL with the block's weight but
            without beta, so that they sum over blocks to the parts of Eq. 7. ``kl_weights`` beside them if
            the guide's first layers have posteriors: not weighed by beta either. Detached.
        """
        if torch.is_grad_enabled():
            block = self._training_input(block)
        beta = (max(beta[0], SMALLEST_BETA), max(beta[1], SMALLEST_BETA))
        self._elbo.parts = {"log_likelihood": block.ratings.new_zeros(())}
        loss = self._elbo.differentiable_loss(self._sample_model, self._sample_guide, block, beta)  # type: ignore[no-untyped-call]
        # The rows' own sites only: hyperparameters are not weighed by beta.
        undo = {f"kl_{side}_{part}": 1.0 / b for side, b in zip(_SIDES, beta, strict=True) for part in _PARTS}
        parts = {name: value * undo.get(name, 1.0) for name, value in self._elbo.parts.items()}
        weights = self.guide.weights_kl()
        if weights is not None:
            # Global: each block of an iteration has an equal share.
            loss = loss + block.global_weight * weights
            parts["kl_weights"] = block.global_weight * weights.detach()
        return loss, parts

    def _training_input(self, block: Block) -> Block:
        """Hide from the encoders what they must not lean on while they are trained."""
        settings = self.guide.guide_settings
        if settings.held_out_input:
            block = hide_block(block, self.guide.n_users, self.guide.n_items)
        if settings.input_dropout:
            block = drop_entries(block, settings.input_dropout)
        return block

    def _sample_model(self, block: Block, beta: tuple[float, float]) -> None:
        with nullcontext() if self.composite is None else self.composite.over(block):
            self.model(block, beta=beta)

    def _sample_guide(self, block: Block, beta: tuple[float, float]) -> None:
        self.model.guide(block)
        self.guide(block, beta=beta)


class _Parts:
    """Keeps each site's share of the ELBO, averaged over particles; Pyro adds them up without names."""

    parts: dict[str, Tensor]
    num_particles: int

    def _add(self, name: str, value: Tensor) -> None:
        share = value.detach() / self.num_particles
        self.parts[name] = self.parts[name] + share if name in self.parts else share

    def _note(self, model_trace: Trace, guide_trace: Trace, *, analytic: bool) -> None:
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample":
                continue
            if site["is_observed"]:
                if name == "rating":
                    self._add("log_likelihood", site["log_prob_sum"])
                continue
            other = guide_trace.nodes[name]
            divergence = other["log_prob_sum"] - site["log_prob_sum"]
            if analytic:
                q, p = cast(Any, other["fn"]), cast(Any, site["fn"])
                # A pair without an analytic KL is sampled, as in the loss itself.
                with suppress(NotImplementedError):
                    divergence = kl_divergence(q, p).sum() * other["scale"]
            self._add(f"kl_{name}", divergence)


class _MeanFieldParts(_Parts, TraceMeanField_ELBO):
    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> Any:
        result = super()._differentiable_loss_particle(model_trace, guide_trace)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._note(model_trace, guide_trace, analytic=True)
        return result


class _ClosedFormParts(_MeanFieldParts):
    """The mean-field ELBO with the rating's log-probability at the draws replaced by its expectation."""

    def __init__(self, model: FactorizationModel, *, num_particles: int) -> None:
        super().__init__(num_particles=num_particles)  # type: ignore[no-untyped-call]
        self.model = model

    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> Any:
        if "rating" in model_trace.nodes:
            site = model_trace.nodes["rating"]
            block: Block = model_trace.nodes["_INPUT"]["args"][0]
            q = {name: cast(Any, node["fn"]) for name, node in guide_trace.nodes.items() if "fn" in node}
            moments = eta_moments(q, self.model.predictor_centre, block.rating_users, block.rating_items)
            expected = self.model.likelihood.expected_log_prob(block.ratings, *moments)
            assert expected is not None
            site["log_prob"] = expected * site["scale"]
            site["log_prob_sum"] = site["log_prob"].sum()
        return super()._differentiable_loss_particle(model_trace, guide_trace)


class _TraceParts(_Parts, Trace_ELBO):
    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> Any:
        result = super()._differentiable_loss_particle(model_trace, guide_trace)  # type: ignore[no-untyped-call]
        self._note(model_trace, guide_trace, analytic=False)
        return result


def eta_moments(q: Mapping[str, Any], centre: Tensor, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return mean and variance of the predictor of pairs under q: exact, as rows are independent.

    With :math:`u \sim N(a, \Sigma)`, :math:`v \sim N(m, T)` and biases independent of them,

    .. math:: \mathrm{var}\,\eta = m^T \Sigma m + a^T T a + \mathrm{tr}(\Sigma T)
              + \mathrm{var}\,b + \mathrm{var}\,c.

    Parameters
    ----------
    q : mapping
        Distributions of a block's rows by site: of ``user_factors`` and ``item_factors`` a `RowFactors`, of
        biases a Normal.
    centre : Tensor, shape ()
    users, items : Tensor, shape (n,)
        Places of the pairs' rows in those distributions.

    Returns
    -------
    mean, variance : Tensor, shape (n,)
    """
    u, v = q["user_factors"], q["item_factors"]
    a, m = u.mean[users], v.mean[items]
    mean = (a * m).sum(-1) + centre
    if u.tril is not None or v.tril is not None:
        left, right = full_tril(u)[users], full_tril(v)[items]
        # The squares of L^T m, M^T a and L^T M, with the Cholesky factors L and M, sum to the three terms.
        variance = (left.mT @ torch.cat([m.unsqueeze(-1), right], dim=-1)).square().sum((-2, -1))
        variance = variance + (right.mT @ a.unsqueeze(-1)).square().sum((-2, -1))
    else:
        s, t = u.variance[users], v.variance[items]
        variance = (a**2 * t + (m**2 + t) * s).sum(-1)
    for name, rows in (("user_bias", users), ("item_bias", items)):
        if name in q:
            mean = mean + q[name].mean[rows]
            variance = variance + q[name].variance[rows]
    return mean, variance


def _check_closed_form(model: FactorizationModel) -> None:
    nothing = torch.zeros(0)
    if model.likelihood.expected_log_prob(nothing, nothing, nothing) is None:
        raise SettingsError(
            f"elbo is 'closed-form', but the {type(model.likelihood).__name__} likelihood gives no expected "
            "log-likelihood in closed form. Set elbo to 'mean-field', or choose the Normal likelihood."
        )
    if model.row_noise is not None:
        raise SettingsError(
            "elbo is 'closed-form', but the model has noise by row. Set elbo to 'mean-field'."
        )
