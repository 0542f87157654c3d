r"""A precision whose standard deviation has a half-t prior of two degrees of freedom: it may be zero.

.. math::

   \lambda^{-1/2} \sim t_2^+(s): \qquad p(\lambda) = s^2 (1 + 2 s^2 \lambda)^{-3/2}, \qquad
   \lambda \mid r \sim \mathrm{Gamma}(1, 2 r), \quad r \sim \mathrm{Gamma}\left(\tfrac{1}{2}, s^{-2}\right).

Given the rate 2r it is conjugate, and E[2r] = s^2 is the rate of an inverse Gamma, under which a standard
deviation much below s is next to impossible: rows that do not differ would be found to differ. Gelman (2006),
doi 10.1214/06-BA117A; Wand et al. (2011), doi 10.1214/11-BA631.

Of K factors it is the prior of the precision under which the standard deviation of each is such a half-t and
the correlation of any two is uniform, whatever K is. Huang and Wand (2013), doi 10.1214/13-BA815:

.. math::

   \Lambda \mid r \sim W\left(K + 1, (4 \, \mathrm{diag}(r))^{-1}\right), \quad r_k \sim
   \mathrm{Gamma}\left(\tfrac{1}{2}, s^{-2}\right): \qquad
   p(\Lambda) \propto \prod_k (1 + 2 s^2 \Lambda_{kk})^{-(K + 2)/2}.

In either case the density is also multiplied by :math:`e^{-\epsilon \mathrm{tr} \Lambda}`,
:math:`\epsilon = (s / 1000)^2`: a standard deviation below a thousandth of s, which is no other than zero
to any rating, is next to impossible. Without that rows would come closer to their means than the digits of
single precision allow. It adds to the rates of all that is conjugate, and what it does to the constant
matters to nothing, as the prior has no parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from scipy.special import multigammaln
from torch import Tensor

from ...numerics import factorise, room

#: Share of s of which standard deviations are hardly below.
_LEAST = 0.001
#: Of `expected_precision_matrix`: the rates it begins at and their change at its end, as shares; its turns.
_BEGUN, _SETTLED, _MOST_TURNS = 1e-8, 1e-10, 100


def least_rate(scale: float) -> float:
    """Return the rate epsilon by which the density falls with the trace of the precision."""
    return (_LEAST * scale) ** 2


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
        """Draw precisions, by the inverse of the half-t's distribution function 1 - (1 + 2 s^2 x)^(-1/2)."""
        shape = torch.Size((*sample_shape, *self.batch_shape))

        def drawn() -> Tensor:
            left = 1.0 - torch.rand(shape, dtype=self.scale.dtype, device=self.scale.device)
            return 0.5 * (left**-2 - 1.0).clamp_min(torch.finfo(left.dtype).tiny) / self.scale**2

        return _accepted(drawn, lambda value: least_rate(1.0) * self.scale**2 * value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, of the batch's shape (or broadcast against it), up to a constant."""
        far = least_rate(1.0) * self.scale**2 * value
        return 2.0 * self.scale.log() - 1.5 * (2.0 * self.scale**2 * value).log1p() - far

    def expand(self, batch_shape: Any, _instance: Any = None) -> HalfTPrecision:
        """Return the same distribution over a larger batch."""
        del _instance
        return HalfTPrecision(self.scale.expand(torch.Size(batch_shape)))


class HalfTPrecisionMatrix(TorchDistribution):
    r"""Distribution of the precision of K factors, each of which has a half-t standard deviation.

    .. math::

       p(\Lambda) = \frac{2^{K (K + 1) / 2}}{\Gamma_K((K + 1) / 2)}
       \left(\frac{\Gamma((K + 2) / 2)}{s \sqrt{\pi}}\right)^K
       \prod_k (s^{-2} + 2 \Lambda_{kk})^{-(K + 2) / 2}.

    Parameters
    ----------
    scale : Tensor
        s of the half-t; its shape is the batch shape.
    n_factors : int
        K.
    """

    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {"scale": constraints.positive}  # noqa: RUF012 (torch's own attribute)
    support = constraints.positive_definite

    def __init__(self, scale: Tensor, n_factors: int) -> None:
        self.scale, self.n_factors = scale, n_factors
        super().__init__(scale.shape, torch.Size((n_factors, n_factors)), validate_args=False)

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw precisions: the rates, and then Bartlett's factors of a Wishart given them."""
        k = self.n_factors
        shape = torch.Size((*sample_shape, *self.batch_shape, k))
        like: dict[str, Any] = {"dtype": self.scale.dtype, "device": self.scale.device}

        def drawn() -> Tensor:
            rate = torch._standard_gamma(torch.full(shape, 0.5, **like)) * self.scale.unsqueeze(-1) ** 2
            root = torch.randn((*shape, k), **like).tril(-1)
            half = (0.5 * (k + 1.0 - torch.arange(k, **like))).expand(shape)
            root = root + torch.diag_embed((2.0 * torch._standard_gamma(half)).sqrt())
            root = root * (4.0 * rate).clamp_min(torch.finfo(rate.dtype).tiny).rsqrt().unsqueeze(-1)
            return root @ root.mT

        return _accepted(drawn, self._far)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, of the batch's shape (or broadcast against it), up to a constant."""
        k = self.n_factors
        power = 0.5 * (k + 2.0)
        constant = 0.5 * k * (k + 1.0) * math.log(2.0) - float(multigammaln(0.5 * (k + 1.0), k))
        constant += k * (math.lgamma(power) - 0.5 * math.log(math.pi))
        # From the scale of the rates s^-2 + 2 Lambda_kk, and of those of r: s^(K + 2) and s^-1 for each.
        tails = (2.0 * self.scale.unsqueeze(-1) ** 2 * value.diagonal(dim1=-2, dim2=-1)).log1p().sum(-1)
        return constant + k * (k + 1.0) * self.scale.log() - power * tails - self._far(value)

    def _far(self, value: Tensor) -> Tensor:
        return least_rate(1.0) * self.scale**2 * value.diagonal(dim1=-2, dim2=-1).sum(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> HalfTPrecisionMatrix:
        """Return the same distribution over a larger batch."""
        del _instance
        return HalfTPrecisionMatrix(self.scale.expand(torch.Size(batch_shape)), self.n_factors)


def _accepted(drawn: Callable[[], Tensor], far: Callable[[Tensor], Tensor]) -> Tensor:
    """Draw until every one has been taken with the probability exp(-far): most are at once."""
    with torch.no_grad():
        found = drawn()
        if found.is_meta:
            return found  # shapes alone are asked for
        left = torch.rand_like(far(found)) > (-far(found)).exp()
        while bool(left.any()):
            new = drawn()
            found = torch.where(left[(..., *[None] * (found.dim() - left.dim()))], new, found)
            left = left & (torch.rand_like(far(new)) > (-far(new)).exp())
        return found


def draw_rate(precision: Tensor, scale: float, n_factors: int = 1) -> Tensor:
    """Draw the rates 2r given a bias's precision, or given the diagonal of the precision of K factors.

    Given it a bias's precision is a Gamma of this rate; the inverse scale of factors' precision has twice
    that on its diagonal.
    """
    shape = torch.full_like(precision, 0.5 * (n_factors + 2.0))
    return 2.0 * torch._standard_gamma(shape) / (scale**-2 + 2.0 * precision)


def expected_precision(shape: float, squares: Tensor, scale: float) -> Tensor:
    r"""Return E[lambda] of the best q(lambda) q(r) for rows whose squares sum to `squares`, in closed form.

    q(lambda) is a Gamma of the given shape and the rate E[2r] + epsilon + `squares` / 2, and
    E[2r] = 3 / (s^-2 + 2 E[lambda]): a quadratic equation, of which this is the positive root.
    """
    squares = squares + 2.0 * least_rate(scale)
    linear = 3.0 + 0.5 * squares * scale**-2 - 2.0 * shape
    root = (linear**2 + 4.0 * squares * shape * scale**-2).sqrt()
    return torch.where(
        linear > 0.0, 2.0 * shape * scale**-2 / (linear + root), (root - linear) / (2.0 * squares)
    )


def expected_precision_matrix(degrees: float, squares: Tensor, scale: float) -> Tensor:
    r"""Return E[Lambda] of the best q(Lambda) q(r) for rows whose squares sum to `squares`, (K, K).

    q(Lambda) is a Wishart of the given degrees, its inverse scale 4 diag(E[r]) + 2 epsilon I + `squares`, and
    E[4 r_k] = 2 (K + 2) / (s^-2 + 2 E[Lambda_kk]). In turn they converge to the one place where both stand
    still, downwards from no rates at all: more of E[Lambda] in one gives more in the other, but less than in
    proportion.
    """
    k = len(squares)
    squares = squares + 2.0 * least_rate(scale) * torch.eye(k, dtype=squares.dtype, device=squares.device)
    at_most = 2.0 * (k + 2.0) * scale**2
    # A card would need as long for each turn as a processor for all of them.
    here = squares.cpu() if room.waits(squares.device) else squares
    rates = here.new_full((k,), _BEGUN * at_most)
    for _ in range(_MOST_TURNS):
        mean = degrees * factorise.inverse(torch.diag(rates) + here)
        before, rates = rates, at_most / (1.0 + 2.0 * scale**2 * mean.diagonal())
        if bool(((rates - before).abs() <= _SETTLED * rates).all().numpy()):
            break
    if not room.waits(squares.device):
        return mean
    return room.to_device(mean.flatten().numpy(), squares.device).to(squares.dtype).view(k, k)
