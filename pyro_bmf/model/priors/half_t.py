r"""A precision whose standard deviation has a half-t prior of two degrees of freedom: it may be zero.

.. math::

   \lambda^{-1/2} \sim t_2^+(s): \qquad p(\lambda) = s^2 (1 + 2 s^2 \lambda)^{-3/2}, \qquad
   \lambda \mid r \sim \mathrm{Gamma}(1, 2 r), \quad r \sim \mathrm{Gamma}\left(\tfrac{1}{2}, s^{-2}\right).

Given the rate 2r it is conjugate, and E[2r] = s^2 is the rate of an inverse Gamma, under which a standard
deviation much below s is next to impossible: rows that do not differ would be found to differ. Gelman (2006),
doi 10.1214/06-BA117A; Wand et al. (2011), doi 10.1214/11-BA631.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor


class HalfTPrecision(TorchDistribution):
    """Distribution of the precision.

    Parameters
    ----------
    scale : Tensor
        s of the half-t; its shape is the batch shape.
    """

    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {"scale": constraints.positive}  # noqa: RUF012 (torch's own attribute)
    support = constraints.positive

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale
        super().__init__(scale.shape, torch.Size(), validate_args=False)

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw precisions, by the inverse of their distribution function 1 - (1 + 2 s^2 x)^(-1/2)."""
        with torch.no_grad():
            shape = torch.Size((*sample_shape, *self.batch_shape))
            left = 1.0 - torch.rand(shape, dtype=self.scale.dtype, device=self.scale.device)
            return 0.5 * (left**-2 - 1.0).clamp_min(torch.finfo(left.dtype).tiny) / self.scale**2

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, of the batch's shape (or broadcast against it)."""
        return 2.0 * self.scale.log() - 1.5 * (2.0 * self.scale**2 * value).log1p()

    def expand(self, batch_shape: Any, _instance: Any = None) -> HalfTPrecision:
        """Return the same distribution over a larger batch."""
        del _instance
        return HalfTPrecision(self.scale.expand(torch.Size(batch_shape)))


def draw_rate(precision: Tensor, scale: float) -> Tensor:
    """Draw the rate 2r given a precision, as conjugate draws of the precision take it."""
    return 2.0 * torch._standard_gamma(torch.full_like(precision, 1.5)) / (scale**-2 + 2.0 * precision)


def expected_precision(shape: float, squares: Tensor, scale: float) -> Tensor:
    r"""Return E[lambda] of the best q(lambda) q(r) for rows whose squares sum to `squares`, in closed form.

    q(lambda) is a Gamma of the given shape and the rate E[2r] + `squares` / 2, and
    E[2r] = 3 / (s^-2 + 2 E[lambda]): a quadratic equation, of which this is the positive root.
    """
    linear = 3.0 + 0.5 * squares * scale**-2 - 2.0 * shape
    root = (linear**2 + 4.0 * squares * shape * scale**-2).sqrt()
    return torch.where(
        linear > 0.0, 2.0 * shape * scale**-2 / (linear + root), (root - linear) / (2.0 * squares)
    )
