r"""Pareto-smoothed importance sampling, many observations at a time.

The largest importance weights of each observation are replaced by quantiles of a generalised Pareto
distribution that is fitted to them (Vehtari, Simpson, Gelman, Yao and Gabry 2024, JMLR 25(72); arXiv
1507.02646). Its shape, k-hat, tells how far the result can be trusted: the weights have 1/k finite moments.
The fit is that of Zhang and Stephens (2009, doi 10.1198/tech.2009.08017) with the weak prior on k of the
former paper. All numbers are those of ArviZ, which goes through observations one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SettingsError

#: Bounds between which k-hats are counted.
K_BOUNDS = (0.5, 0.7, 1.0)
#: Draws below which no tail of five is left to fit.
MIN_DRAWS = 25
#: Ratios whose tail is closer together than this have no tail.
_TINY = torch.finfo(torch.float64).tiny
#: Factors whose product is taken before its logarithm, and how large one may be.
_FACTORS = 12
_WIDE = 1e20
_NEGLIGIBLE = 10 * torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class SmoothedTail:
    """Importance weights of n observations after smoothing.

    Attributes
    ----------
    k_hat : Tensor, shape (n,)
        Shape of the fitted tail. NaN where all weights of the tail are equal, which need no smoothing;
        infinite where the weights span more than numbers can hold, so that nothing can be fitted.
    tail : Tensor, shape (n, n_tail)
        The largest log ratios, ascending, less the largest of the row: smoothed.
    raw_tail : Tensor, shape (n, n_tail)
        The same before smoothing.
    rest : Tensor, shape (n,)
        Sum of the weights below the tail, where the largest is one.
    largest : Tensor, shape (n,)
        The largest log ratio.
    """

    k_hat: Tensor
    tail: Tensor
    raw_tail: Tensor
    rest: Tensor
    largest: Tensor


def tail_length(n_draws: int, efficiency: float = 1.0) -> int:
    """Return how many of the largest weights are the tail.

    Parameters
    ----------
    n_draws : int
    efficiency : float
        Effective sample size over draws: 1 for independent draws.

    Raises
    ------
    SettingsError
        If the draws are too few for a tail of five.
    """
    if n_draws < MIN_DRAWS:
        raise SettingsError(
            f"Pareto smoothing of {n_draws} draws: a tail of five needs {MIN_DRAWS} or more draws, and good "
            "estimates need hundreds. Take more draws; of a chain, fit again with more draws kept "
            "(kept_draws, --kept-draws)."
        )
    if not (math.isfinite(efficiency) and efficiency > 0):
        raise SettingsError(f"the efficiency of the draws is {efficiency}: give a positive number.")
    if n_draws * efficiency > 225:
        return min(math.floor(3 * math.sqrt(n_draws / efficiency)), n_draws - 1)
    return n_draws // 5


def good_k(n_draws: int) -> float:
    """Return the largest k-hat at which so many draws suffice: min(0.7, 1 - 1/log10 S)."""
    return min(0.7, 1.0 - 1.0 / math.log10(n_draws))


def count_k_hats(k_hat: NDArray[np.float64]) -> dict[str, int]:
    """Return how many k-hats are in each range; NaN, of equal weights, counts as the lowest."""
    k = np.where(np.isnan(k_hat), -np.inf, k_hat)
    edges = (-np.inf, *K_BOUNDS, np.inf)
    names = ["k <= 0.5", "0.5 < k <= 0.7", "0.7 < k <= 1", "k > 1"]
    inside = [(k <= high).sum() - (k <= low).sum() for low, high in pairwise(edges)]
    inside[0] += np.isneginf(k).sum()
    return dict(zip(names, map(int, inside), strict=True))


@torch.no_grad()
def smooth_tail(log_ratios: Tensor, efficiency: float = 1.0) -> SmoothedTail:
    """Smooth the tail of each row of log importance ratios.

    Parameters
    ----------
    log_ratios : Tensor, shape (n, n_draws), float64
        Unnormalised.
    efficiency : float
        Effective sample size over draws.
    """
    n_tail = tail_length(log_ratios.shape[1], efficiency)
    ordered = _ascending(log_ratios)
    largest = ordered[:, -1].clone()
    ordered -= largest[:, None]
    # The last one before the tail is the threshold above which the tail lies.
    cutoff, raw = ordered[:, -n_tail - 1 : -n_tail].clone(), ordered[:, -n_tail:].clone()
    rest = ordered[:, :-n_tail].exp().sum(1)
    threshold = cutoff.exp()
    k_hat, sigma = fit_generalised_pareto(raw.exp() - threshold)
    shares = (torch.arange(n_tail, dtype=raw.dtype, device=raw.device) + 0.5) / n_tail
    smoothed = _quantiles(shares, k_hat[:, None], sigma[:, None], threshold).log().clamp_max(0.0)
    flat = raw[:, -1] - raw[:, 0] < _TINY
    usable = torch.isfinite(k_hat) & torch.isfinite(smoothed).all(1)
    k_hat = torch.where(usable, k_hat, torch.where(flat, torch.nan, torch.inf))
    return SmoothedTail(k_hat, torch.where(usable[:, None], smoothed, raw), raw, rest, largest)


def _ascending(values: Tensor) -> Tensor:
    """Return a copy with each row in ascending order."""
    if values.device.type == "cpu":  # NumPy's sort of short rows is several times faster than torch's
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(1).values


@torch.no_grad()
def fit_generalised_pareto(excesses: Tensor) -> tuple[Tensor, Tensor]:
    """Fit shape and scale to each row.

    Parameters
    ----------
    excesses : Tensor, shape (n, m), float64
        Positive numbers, ascending along a row.

    Returns
    -------
    tuple of Tensor
        Shape k, drawn toward 0.5 by a prior worth ten observations, and scale sigma; (n,) each.
    """
    m = excesses.shape[1]
    n_grid = 30 + int(m**0.5)
    at = torch.arange(1, n_grid + 1, dtype=excesses.dtype, device=excesses.device)
    grid = 1.0 - torch.sqrt(n_grid / (at - 0.5))
    quartile = excesses[:, int(m / 4 + 0.5) - 1]
    b = grid / (3.0 * quartile[:, None]) + 1.0 / excesses[:, -1:]  # (n, n_grid)
    k = _mean_logs(b, excesses)
    log_density = m * (torch.log(-b / k) - k - 1.0)
    weights = torch.softmax(log_density, 1)
    weights = torch.where(weights >= _NEGLIGIBLE, weights, 0.0)
    best = (b * weights).sum(1) / weights.sum(1)
    shape = torch.log1p(-best[:, None] * excesses).mean(1)
    sigma = -shape / best
    return (m * shape + 5.0) / (m + 10.0), sigma


def _mean_logs(b: Tensor, excesses: Tensor) -> Tensor:
    """Return the mean over a row's excesses of log(1 - b x), for b of shape (n, n_grid).

    Logarithms are taken of products of some factors, which is several times faster; where a product could
    leave the range of numbers, of each factor.
    """
    total = torch.zeros_like(b)
    factor = torch.empty_like(b)
    columns = excesses.T.contiguous()[:, :, None]
    one = torch.ones_like(b)
    for part in columns.split(_FACTORS):  # type: ignore[no-untyped-call]
        product = one.clone()
        for x in part:
            torch.addcmul(one, b, x, value=-1.0, out=factor)
            product *= factor
        total += product.log_()
    wide = b[:, 0].abs() * excesses[:, -1] > _WIDE
    if bool(wide.any()):
        few, own = b[wide], excesses[wide]
        total[wide] = torch.stack([torch.log1p(-one[:, None] * own).sum(1) for one in few.T], 1)
    return total / excesses.shape[1]


def _quantiles(shares: Tensor, k: Tensor, sigma: Tensor, threshold: Tensor) -> Tensor:
    """Quantiles of generalised Paretos beyond a threshold."""
    exponent = -torch.log1p(-shares)
    beyond = torch.where(k == 0.0, exponent, torch.expm1(k * exponent) / k)
    return torch.where(sigma > 0.0, threshold + sigma * beyond, torch.nan)


@torch.no_grad()
def leave_one_out(
    log_likelihood: Tensor, efficiency: float = 1.0, scored: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Leave each row's observation out, reweighting draws of the posterior that has seen it.

    Draw s has weight :math:`w_s \propto 1 / p(x \mid \theta_s)`, smoothed, and
    :math:`\log p(x \mid \text{the rest}) \approx \log \sum_s w_s q(x \mid \theta_s) / \sum_s w_s`, where q
    is p unless another probability is `scored` than the one that was fitted.

    Parameters
    ----------
    log_likelihood : Tensor, shape (n, n_draws), float64
        Of what was fitted, nats.
    efficiency : float
        Effective sample size over draws.
    scored : Tensor, optional, shape (n, n_draws), float64
        What each draw says of what is predicted, nats: `log_likelihood` when not given.

    Returns
    -------
    tuple of Tensor
        Log predictive density of each observation given the rest; k-hat; and the log predictive density under
        the whole posterior. (n,) each.
    """
    n_draws = log_likelihood.shape[1]
    smooth = smooth_tail(-log_likelihood, efficiency)
    n_tail = smooth.tail.shape[1]
    chances = log_likelihood if scored is None else scored
    within = torch.logsumexp(chances, 1) - math.log(n_draws)
    if scored is not None:
        order = (-log_likelihood).argsort(1)
        below = -log_likelihood.gather(1, order[:, :-n_tail]) - smooth.largest[:, None]
        weights = torch.cat([below, smooth.tail], 1)
        chosen = torch.logsumexp(weights + scored.gather(1, order), 1)
        return chosen - torch.logsumexp(weights, 1), smooth.k_hat, within
    total = smooth.rest + smooth.tail.exp().sum(1)
    # Below the tail weight times likelihood is the same for all draws, exp(-largest).
    weighted = (n_draws - n_tail) + (smooth.tail - smooth.raw_tail).exp().sum(1)
    return weighted.log() - total.log() - smooth.largest, smooth.k_hat, within
