r"""The collapsed bound: the ELBO of one side whose rows are integrated out, the other side's q being given.

With :math:`L L^T = P_i`, :math:`\zeta_i = L^{-1} (h_i + \Lambda m_i)` and
:math:`C_i = \Lambda - \Lambda P_i^{-1} \Lambda`, at the means of q(y) and q(mu),

.. math::

   F = \sum_i \left[\tfrac{1}{2} \zeta_i^T \zeta_i - \tfrac{1}{2} m_i^T \Lambda m_i
       - \sum \log \mathrm{diag} L + \tfrac{1}{2} \log |\Lambda|
       - \tfrac{1}{2} \mathrm{tr}(C_i \mathrm{Var}(m_i)) \right]
     + \sum_{ij} \left[k_{ij} - \tfrac{1}{2} \tau_{ij} E(\hat z_{ij} - c_j)^2 \right],

k what a rating's log-probability is beyond its Normal (`rating_terms`). It is Eq. 7 of the rows of one side
at their best q: :math:`\beta F(\tau / \beta, k / \beta) - KL(q(y))`. Only the weights' means have a gradient
here; everything else has its update in closed form (`updates`). Lambda, lambda and the noise stand at their
means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer.elbo import ELBO
from torch import Tensor

from ...model.sides import Side
from ..kernel import Entries
from .guide import ExactHeadGuide
from .head import Head, Moments
from .rating_terms import RatingTerms


class _Means(torch.autograd.Function):
    """Implicit-feedback means, whose transpose is stored: gradients need no scatter."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, entries: Entries) -> Tensor:
        ctx.entries = entries
        return entries.means(weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.entries.means_back(gradient.contiguous()), None


@dataclass(frozen=True, eq=False)
class Collapsed:
    """What the bound of one side is computed from while the other side's q stays.

    Attributes
    ----------
    side : {"user", "item"}
    mask : Entries
        Pairs of the implicit feedback.
    head : Head
    beta : float
        Weight of the rows' KL; the head's precisions are divided by it.
    constant : Tensor, shape (), float64
        What of F does not depend on the weights' means, nats.
    weights_constant : Tensor, shape (), float64
        The same of KL(q(y)).
    """

    side: Side
    mask: Entries
    head: Head
    beta: float
    constant: Tensor
    weights_constant: Tensor

    @classmethod
    def of(
        cls,
        guide: ExactHeadGuide,
        side: Side,
        entries: Entries,
        head: Head,
        other: Moments,
        terms: RatingTerms,
        beta: float,
        mean_precision: tuple[Tensor, Tensor] | None = None,
        mask: Entries | None = None,
    ) -> Collapsed:
        """Integrate the rows of a side out.

        Parameters
        ----------
        other : Moments
            Of the other side.
        terms : RatingTerms
            In the side's order of ratings.
        mean_precision : tuple of Tensor, optional
            `Head.mean_precision`, where it is known.
        mask : Entries, optional
            Pairs of the implicit feedback, where these are not the rated ones.
        """
        mask = entries if mask is None else mask
        own, conditional = guide.of(side), head.conditional
        prior = conditional.prior_precision.double()
        n = entries.n_rows
        constant = 0.5 * n * torch.logdet(prior) - _log_diagonals(conditional.precision_tril)
        _, variance = guide.encode_means(side, mask)
        diagonals, total = head.mean_precision() if mean_precision is None else mean_precision
        spread = (diagonals.double() * variance.double()).sum()
        constant = constant - 0.5 * (spread + (total.double() * own.location_covariance.double()).sum())
        row_precision = guide.noise_precision.to(other.bias.dtype) * own.row_precision
        precision = (entries.at_rows(row_precision) * entries.at_columns(other.precision)).double()
        if terms.share is not None:
            precision = precision * terms.share
        gap = (terms.target - entries.at_columns(other.bias)).double() ** 2
        doubt = entries.at_columns(other.bias_second - other.bias**2).double()
        said = terms.constant - 0.5 * (precision * (gap + doubt)).sum()
        weights = torch.zeros_like(said)
        if guide.implicit:
            sd, level = own.weights_sd.double(), own.weights_precision.double()
            weights = (0.5 * (level * sd**2 - 1.0 - level.log()) - sd.log()).sum()
        return cls(side, mask, head, beta, constant + said / beta, weights)


class CollapsedELBO(ELBO):
    """The bound as one of Pyro's: ``CollapsedELBO()(model, guide)`` is a loss of a `Collapsed` side.

    Parameters
    ----------
    scale : float
        What the loss is divided by, as the number of ratings.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(strict_enumeration_warning=False)  # type: ignore[no-untyped-call]
        self.scale = scale

    def differentiable_loss(
        self, model: Any, guide: ExactHeadGuide, given: Collapsed, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return -(beta F - KL(q(y))) by the scale, which has a gradient in the side's weights."""
        del model, args, kwargs
        own = guide.of(given.side)
        mean = own.location.expand(given.mask.n_rows, -1)
        if guide.implicit:
            mean = mean + _Means.apply(own.weights, given.mask)  # type: ignore[no-untyped-call]
        pull = mean @ given.head.conditional.prior_precision
        linear = given.head.conditional.linear + pull
        evidence = 0.5 * (linear * given.head.conditional.solve(linear)).sum() - 0.5 * (mean * pull).sum()
        kl = 0.5 * (own.weights_precision * own.weights**2).sum()
        kl = kl + given.weights_constant.to(kl.dtype)
        constant = given.constant.to(evidence.dtype)
        loss: Tensor = -(given.beta * (evidence + constant) - kl) / self.scale
        return loss

    def loss(self, model: Any, guide: ExactHeadGuide, *args: Any, **kwargs: Any) -> float:
        """Return the loss as a number."""
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Any, guide: ExactHeadGuide, *args: Any, **kwargs: Any) -> float:
        """Return the loss, and leave its gradient with the weights: what `pyro.infer.SVI` asks of an ELBO."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _get_trace(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: rows are integrated out, so there is no trace of them."""
        raise TypeError("CollapsedELBO integrates rows out and draws no traces.")


def _log_diagonals(tril: Tensor) -> Tensor:
    """Return the sum of the logarithms of Cholesky factors' diagonals, float64."""
    return tril.diagonal(dim1=1, dim2=2).double().log().sum()
