r"""How new rows without noise of their own join a chain: draw by draw, from their exact conditional.

A new row i is given, for each draw s of everything else, a draw of :math:`u_i \mid V^{(s)}, \mu^{(s)},
\Lambda^{(s)}, y^{(s)}, \ldots` and its own ratings. Under a Normal likelihood that is one exact draw; under
an ordered one the row has utilities too, and takes a few Gibbs steps. In chains of earlier versions rows with
noise of their own join like this as well; `new_rows` tells what they lose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.feedback import Feedback
from ...model.likelihoods.normal_utilities import Utilities
from ...model.row_draws import RowDraws, working_dtype
from ..kernel import Conditional, Entries, outer_products
from .common_coordinates import Priors
from .hyper_draws import draw_row_noise

#: Numbers in the tables of one chunk of draws.
_CELLS = 8_000_000


@dataclass(frozen=True, eq=False)
class _Stack:
    """New rows, repeated for each of some draws of the other side.

    Attributes
    ----------
    feedback : Feedback
    other : RowDraws
    columns : Tensor, shape (m,)
        The other side's rows that there are entries in.
    places : Tensor, shape (nnz,)
        Which of them each entry is in.
    """

    feedback: Feedback
    other: RowDraws
    columns: Tensor
    places: Tensor

    def entries(self, s: int, dtype: torch.dtype) -> tuple[Entries, Tensor]:
        """Return the rows once for each of s draws, each over its own m columns, and their values."""
        feedback, m = self.feedback, len(self.columns)
        n, nnz, device = feedback.n_rows, feedback.nnz, feedback.values.device
        draw = torch.arange(s, device=device)
        indices = (self.places.repeat(s) + draw.repeat_interleave(nnz) * m).int()
        starts = feedback.indptr[:-1].long().repeat(s) + draw.repeat_interleave(n) * nnz
        indptr = torch.cat([starts, starts.new_tensor([s * nnz])]).int()
        nothing = torch.zeros(s * m + 1, dtype=torch.int32, device=device)
        entries = Entries.build(indptr, indices, nothing, indices[:0], dtype)
        return entries, feedback.values.to(dtype).repeat(s)


def draw_by_draws(
    feedback: Feedback,
    other: RowDraws,
    priors: Priors,
    utilities: Utilities,
    *,
    centre: Tensor,
    steps: int,
) -> RowDraws:
    """Return draws of new rows; see `new_rows.draw_new_rows`."""
    columns, places = torch.unique(feedback.indices.long(), return_inverse=True)
    width, n_draws = other.draws.shape[-1], other.n_draws
    n, m, nnz = feedback.n_rows, len(columns), feedback.nnz
    per_draw = m * width * (width + 3) + n * width * (3 * width + 4) + nnz * 8
    size = max(1, _CELLS // max(per_draw, 1))
    stack = _Stack(feedback, other, columns, places)
    parts = [
        _drawn(
            stack,
            priors,
            utilities,
            torch.arange(start, min(start + size, n_draws), device=other.device),
            centre,
            steps,
        )
        for start in range(0, n_draws, size)
    ]
    noise = None
    if other.noise_factor is not None or priors.row_precision_shape is not None:
        noise = torch.stack([part[2] for part in parts]).sum(0) / n_draws
    draws, means = (torch.cat([part[place] for part in parts], 1) for place in (0, 1))
    return RowDraws(draws, means, other.biased, noise, chains=other.chains)


def _drawn(
    stack: _Stack, priors: Priors, likelihood: Utilities, draws: Tensor, centre: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return draws (n, s, D), means (n, s, D) and summed noise (n,) for some of the chain's draws.

    Rows of all the draws stand below each other: row i of draw s is row s * n + i.
    """
    feedback, other, columns, priors = stack.feedback, stack.other, stack.columns, priors.at(draws)
    n, m, s = feedback.n_rows, len(columns), len(draws)
    width, shape = other.draws.shape[-1], priors.row_precision_shape
    dtype = working_dtype(other.draws)
    drawn = other.draws[columns][:, draws].to(dtype).transpose(0, 1).reshape(s * m, width)
    entries, values = stack.entries(s, dtype)
    features, offset = drawn, torch.zeros(s * m, dtype=dtype, device=drawn.device)
    if other.bias:
        features, offset = drawn.clone(), drawn[:, -1]
        features[:, -1] = 1.0
    weight = torch.ones(s * m, dtype=dtype, device=drawn.device)
    if other.noise_factor is not None:
        weight = (other.noise_factor[columns] ** -2).to(dtype).repeat(s)
    location, precision = priors.location.to(dtype), priors.precision.to(dtype)
    prior_mean = location.repeat_interleave(n, 0)
    if priors.weights is not None:
        weights = priors.weights[draws.unsqueeze(1), columns].reshape(s * m, width).to(dtype)
        prior_mean = prior_mean + entries.means(weights)
    prior = precision.repeat_interleave(n, 0)
    level = priors.noise_precision.to(dtype).repeat_interleave(n)
    products = outer_products(features) * weight.unsqueeze(-1)
    information = entries.sum(products).view(s * n, *precision.shape[1:]) * level.view(-1, 1, 1)
    own = torch.ones(s * n, dtype=dtype, device=drawn.device)
    at = entries.indices.long()

    def conditional(utilities: Tensor) -> tuple[Conditional, Tensor]:
        linear = entries.sum(features * weight.unsqueeze(-1), utilities - offset[at])
        linear = linear * (level * own).unsqueeze(-1)
        found = Conditional.of(prior, information * own.view(-1, 1, 1), linear)
        pull = (prior @ prior_mean.unsqueeze(-1)).squeeze(-1)
        return found, found.solve(linear + pull)

    normal = not likelihood.latent and shape is None
    observed = likelihood.observe(values + centre) if likelihood.latent else values
    cuts = priors.cuts.repeat_interleave(feedback.nnz, 0)
    utilities = values
    found, mean = conditional(utilities)
    rows = mean + found.spread(torch.randn_like(mean))
    for _ in range(0 if normal else steps):
        eta = (features[at] * rows[entries.rows]).sum(-1) + offset[at]
        if likelihood.latent:
            noise_sd = (level[entries.rows] * own[entries.rows] * weight[at]).rsqrt()
            drawn_here = likelihood.draw_given(cuts, eta.double(), noise_sd.double(), observed)
            utilities = drawn_here.to(eta.dtype)
        if shape is not None:
            squares = (utilities - eta) ** 2 * level[entries.rows] * weight[at]
            total = entries.row_sums(squares).double()
            counts = entries.indptr.diff().double()
            own = draw_row_noise(counts, total, shape.repeat_interleave(n)).to(dtype)
        found, mean = conditional(utilities)
        rows = mean + found.spread(torch.randn_like(mean))
    noise = own.rsqrt().view(s, n).sum(0)
    return rows.view(s, n, -1).transpose(0, 1), mean.view(s, n, -1).transpose(0, 1), noise
