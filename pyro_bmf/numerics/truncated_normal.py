"""Normals truncated to the cells of an ordered scale: their means, and the cells' probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def truncated_mean(eta: Tensor, scale: Tensor, cuts: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return E[z | z in its cell] and the log-probability of the cell, for z ~ N(eta, scale^2).

    Parameters
    ----------
    eta : Tensor, shape (n,), float64
    scale : Tensor, shape () or (n,)
    cuts : Tensor, shape (n_levels - 1,), float64
    place : Tensor, shape (n,), int64
        Which cell each z is in.

    Returns
    -------
    mean, log_probability : Tensor, shape (n,)
    """
    far = cuts.new_full((1,), 1e8)
    edges = torch.cat([-far, cuts, far])
    low, high = (edges[place] - eta) / scale, (edges[place + 1] - eta) / scale
    # Mirrored into the lower tail, where a difference of small numbers keeps its digits.
    flip = low > 0
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
    root_half = math.sqrt(0.5)
    share = 0.5 * (torch.special.erfc(-b * root_half) - torch.special.erfc(-a * root_half))
    share = share.clamp_min(1e-300)
    density = 1.0 / math.sqrt(2.0 * math.pi)
    shift = density * ((-0.5 * a * a).exp() - (-0.5 * b * b).exp()) / share
    # Far out the ratio loses its digits; the mean is then next to the nearer edge.
    inside = torch.minimum(torch.maximum(shift, a), b)
    mean = eta + scale * torch.where(flip, -inside, inside)
    return mean, share.log()
