r"""What pairs bring to a likelihood of their rows' own, noise and cut points: as means, averaged, drawn.

A pair multiplies the likelihood's standard deviation by the product of its rows' multipliers. Where these are
uncertain and rows say how much (`Rows.noise_spread`), the logarithm of the product is taken for Normal, and
predictions average over it: :math:`m \exp(s z - s^2 / 2)`, whose mean is that of the multipliers, m. A
prediction at m alone has too thin tails where rows have few ratings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.fitted import Rows
from ..model.pair_terms import pair_terms
from ..numerics.keyed_draws import TERMS, Stream, row_noise
from ..numerics.quadrature import gauss_hermite

Indices = NDArray[np.int64]
#: Nodes over what is unknown of a pair's noise.
NODES = 5


def relative_noise(users: Rows, items: Rows, i: Indices, j: Indices) -> tuple[Any, ...]:
    """Return the pairs' noise multipliers, (n,), and users' cut points, as a likelihood's argument.

    None where rows have nothing of their own. What they have enters at its posterior mean (median).
    """
    own, other = (torch.tensor(at, device=users.device) for at in (i, j))
    noises = [
        rows.noise_factor[at].double()
        for rows, at in ((users, own), (items, other))
        if rows.noise_factor is not None
    ]
    cuts = users.cuts
    return pair_terms(noises, None if cuts is None else cuts[own].double())


def noise_nodes(users: Rows, items: Rows, i: Indices, j: Indices) -> list[tuple[float, tuple[Any, ...]]]:
    """Return settings of `relative_noise` with a weight each, over which predictions of pairs average.

    One setting, `relative_noise` itself, where no rows tell how uncertain their noise is.
    """
    terms = relative_noise(users, items, i, j)
    told = [(rows.noise_spread, at) for rows, at in ((users, i), (items, j)) if rows.noise_spread is not None]
    if not told:
        return [(1.0, terms)]
    (mean,) = terms
    variance = torch.stack(
        [spread[torch.tensor(at, device=users.device)].double().square() for spread, at in told]
    ).sum(0)
    nodes, weights = gauss_hermite(NODES)
    return [
        (float(weight), ((mean * (variance.sqrt() * float(node) - 0.5 * variance).exp()),))
        for node, weight in zip(nodes, weights, strict=True)
    ]


def draw_terms(sides: tuple[tuple[Rows, Indices, Stream], ...], draws: Indices, seed: int) -> tuple[Any, ...]:
    """Draw what `relative_noise` gives the means of: terms of the shape (n_draws, n).

    Keyed by row, as draws of rows are. What has no spread stands as it is.

    Parameters
    ----------
    sides : tuple of (Rows, ndarray, Stream)
        Users with the pairs' rows and the random numbers of their draws, and the same of the items.
    draws : ndarray
    seed : int
    """
    noises: list[Tensor] = []
    cuts: Tensor | None = None
    for rows, at, stream in sides:
        own = torch.tensor(at, device=rows.device)
        spread = rows.noise_factor_log_sd if rows.noise_spread is None else rows.noise_spread
        if rows.noise_factor is not None and spread is None:
            noises.append(rows.noise_factor[own].double().expand(len(draws), len(at)))
        if spread is None and rows.cuts is None:
            continue
        width = (spread is not None) + (0 if rows.cuts is None else rows.cuts.shape[1])
        distinct, place = np.unique(at, return_inverse=True)
        normal = torch.from_numpy(row_noise(seed, TERMS[stream], distinct, draws, width)).to(rows.device)
        normal = normal[:, torch.tensor(place, device=rows.device)]
        if rows.noise_factor is not None and spread is not None:
            deviation = spread[own].double() * normal[..., 0]
            if rows.noise_spread is not None:  # about the mean, not the median
                deviation = deviation - 0.5 * spread[own].double().square()
            noises.append(rows.noise_factor[own].double() * deviation.exp())
        if rows.cuts is not None and rows.cuts_scale is not None:
            shift = rows.cuts_scale[own].double() * normal[..., int(spread is not None) :]
            cuts = rows.cuts[own].double() + shift
    return pair_terms(noises, cuts)
