r"""How new rows join a chain: draw by draw, and knowing that the other side's draws are uncertain.

This is for rows with noise of their own. A new row i is given, for each draw s of everything else, a draw of
its factors and bias: as many as the model's rows have, in step with them. Nothing else moves: it is no part
of what the chain has seen. So the items' draws were not made with its ratings, and their errors, which a row
of the chain shares in drawing, are noise to it. With items at their conditional means
:math:`\hat v_j = E[v_j \mid U^{(s)}]` and errors of covariance :math:`C_j` its ratings follow

.. math:: z_{ij} \mid u_i \sim N\left(f_i \cdot (\hat v_j, c_j) + \mu, \;
          \frac{1}{\tau w_i w'_j} + f_i^T C_j f_i\right), \qquad f_i = (u_i, 1).

Taking the drawn :math:`v_j` for known instead puts their errors into what the row's own noise :math:`w_i` is
learned from: predictions are then too wide. Each step draws the utilities, the noise's share of the residuals
and with it :math:`w_i`, and then the row from its conditional, the variances :math:`f_i^T C_j f_i` being
those at the row's draw before (which leaves out that a smaller row would make them smaller: in a case with
fourteen ratings and large errors that moves the row's mean by a sixth of its standard deviation). Items that
are new to the chain join it alike.

The same holds of a row's prior mean where implicit feedback gives it: the draws of its weights y were made
without the row's ratings, which say more of the sum of y over what it rated than all draws do. With the mean
over draws for its prior mean, and their variance added to the prior's,

.. math:: u_i \sim N\left(\bar m_i, \Lambda^{-1} + \mathrm{var}_s(m_i^{(s)})\right), \qquad
          m_i^{(s)} = n_i^{-1/2} \sum_j y_j^{(s)},

the ratings decide how much of it is believed. Taking each draw's mean for known instead, a row can only be
what that draw of y makes of it, however far the draws are apart.

:math:`C_j` is that of all draws about their mean, so that it holds what the conditional of one sweep does not
tell: how far factors themselves differ between draws. That needs draws in common coordinates. Factors of a
draw are scaled so that the new rows' prior has the identity for its covariance, then rotated to the mean of
all draws (Procrustes), and lastly to the principal axes of the errors, along which these are taken for
independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...model.feedback import Feedback
from ...model.likelihoods.normal_utilities import Utilities
from ...model.row_draws import RowDraws
from ..kernel import Conditional, Entries, outer_products
from .common_coordinates import Common, Priors
from .hyper_draws import draw_row_noise

#: Numbers in the tables of one chunk of draws.
_CELLS = 8_000_000


def draw_new_rows(
    feedback: Feedback,
    other: RowDraws,
    priors: Priors,
    utilities: Utilities,
    *,
    centre: Tensor,
    steps: int,
    uncertain_means: bool = True,
    noise_spread: bool = True,
) -> RowDraws:
    """Return draws of new rows, in step with those of the other side.

    Parameters
    ----------
    feedback : Feedback
        The new rows' entries; values are ratings less `centre`.
    other : RowDraws
        All rows of the other side.
    priors : Priors
    utilities : Utilities
        Of the likelihood.
    centre : Tensor, shape ()
    steps : int
        Gibbs steps.
    uncertain_means : bool
        Whether the rows know how uncertain the draws of the weights leave their prior means.
    noise_spread : bool
        Whether predictions of the rows average over what is unknown of their noise.
    """
    columns, places = torch.unique(feedback.indices.long(), return_inverse=True)
    common = Common.of(other, columns, priors)
    width, n_draws = other.draws.shape[-1], other.n_draws
    n, m, nnz = feedback.n_rows, len(columns), feedback.nnz
    per_draw = m * width * (width + 3) + n * width * (3 * width + 4) + nnz * 8
    size = max(1, _CELLS // max(per_draw, 1))
    weight = None if other.noise_factor is None else other.noise_factor[columns] ** -2
    chunks = [
        torch.arange(start, min(start + size, n_draws), device=other.device)
        for start in range(0, n_draws, size)
    ]
    expected = None
    if priors.weights is not None and uncertain_means:
        expected = Expected.of(feedback, places, common, priors, chunks)
    parts = [
        _Chunk.of(feedback, places, common, weight, priors, draws, centre, expected).draw(utilities, steps)
        for draws in chunks
    ]
    noise = spread = None
    if weight is not None or priors.row_precision_shape is not None:
        every = torch.cat([part[2] for part in parts])
        noise = every.sum(0) / n_draws
        if noise_spread:
            spread = every.log().std(0, correction=0)
    draws, means = (torch.cat([part[place] for part in parts], 1) for place in (0, 1))
    return RowDraws(draws, means, other.biased, noise, spread, other.chains)


@dataclass(frozen=True, eq=False)
class Expected:
    """What implicit feedback says of new rows in the common coordinates, over all draws of its weights.

    Attributes
    ----------
    means, variances : Tensor, shape (n, D)
        Of the rows' prior means, the location apart.
    """

    means: Tensor
    variances: Tensor

    @classmethod
    def of(
        cls, feedback: Feedback, places: Tensor, common: Common, priors: Priors, chunks: list[Tensor]
    ) -> Expected:
        """Add them up over the draws, some at a time."""
        total = squares = torch.zeros((), dtype=torch.float64, device=places.device)
        for draws in chunks:
            means = _implicit_means(feedback, places, common, priors, draws).double()
            total, squares = total + means.sum(0), squares + means.square().sum(0)
        n, dtype = common.turns.shape[0], common.means.dtype
        mean = total / n
        return cls(mean.to(dtype), (squares / n - mean.square()).clamp_min(0.0).to(dtype))


def _implicit_means(
    feedback: Feedback, places: Tensor, common: Common, priors: Priors, draws: Tensor
) -> Tensor:
    """Return what implicit feedback adds to the prior means of new rows at some draws, (s, n, D)."""
    assert priors.weights is not None
    dtype, k, s = common.means.dtype, common.turns.shape[-1], len(draws)
    weights = priors.weights[draws.unsqueeze(1), common.columns].to(dtype)
    weights[..., :k] = torch.linalg.solve(common.turns[draws], weights[..., :k].mT).mT
    indices = places.int()
    nothing = torch.zeros(len(common.columns) + 1, dtype=torch.int32, device=places.device)
    once = Entries.build(feedback.indptr, indices, nothing, indices[:0], dtype)
    width = weights.shape[-1]
    means = once.means(weights.transpose(0, 1).reshape(len(common.columns), s * width))
    return means.view(feedback.n_rows, s, width).transpose(0, 1)


@dataclass(eq=False)
class _Chunk:
    """New rows at some draws of the chain, below each other: row i of draw s is row s * n + i.

    Attributes
    ----------
    common : Common
    table : Tensor, shape (s * m, K + 1)
        Its means, draw after draw.
    priors : Priors
        At these draws.
    entries : Entries
        Each row over the columns of its draw.
    values : Tensor, shape (nnz,)
        Ratings less the centre.
    weight : Tensor, shape (nnz,)
        Precision of an entry's utility, but for the row's own multiplier.
    prior : Tensor, shape (s * n, D, D)
        Precision of the rows, in the common coordinates.
    prior_mean : Tensor, shape (s * n, D)
    turns : Tensor, shape (s, K, K)
    centre : Tensor, shape ()
    n : int
        Number of new rows.
    """

    common: Common
    table: Tensor
    priors: Priors
    entries: Entries
    values: Tensor
    weight: Tensor
    prior: Tensor
    prior_mean: Tensor
    turns: Tensor
    centre: Tensor
    n: int

    @classmethod
    def of(
        cls,
        feedback: Feedback,
        places: Tensor,
        common: Common,
        weight: Tensor | None,
        priors: Priors,
        draws: Tensor,
        centre: Tensor,
        expected: Expected | None,
    ) -> _Chunk:
        """Gather what the draws are made of."""
        n, s, m, k = feedback.n_rows, len(draws), len(common.columns), common.turns.shape[-1]
        at_draws, dtype, device = priors.at(draws), common.means.dtype, common.means.device
        width = at_draws.location.shape[-1]
        starts = feedback.indptr[:-1].long().repeat(s)
        starts += torch.arange(s, device=device).repeat_interleave(n) * feedback.nnz
        indptr = torch.cat([starts, starts.new_tensor([s * feedback.nnz])]).int()
        nothing = torch.zeros(m + 1, dtype=torch.int32, device=device)
        indices = places.int()
        stacked = (
            places.repeat(s) + torch.arange(s, device=device).repeat_interleave(feedback.nnz) * m
        ).int()
        entries = Entries.build(indptr, stacked, nothing, indices[:0], dtype)
        precision = at_draws.noise_precision.to(dtype).repeat_interleave(n)[entries.rows]
        if weight is not None:
            precision = precision * weight.to(dtype)[places].repeat(s)
        turns = common.turns[draws]
        precisions = torch.ones(s, width, dtype=dtype, device=device)
        if width > k:
            precisions[:, k] = at_draws.precision[:, k, k].to(dtype)
        if expected is not None:
            variances = 1.0 / precisions.unsqueeze(1) + expected.variances
            prior, prior_mean = torch.diag_embed(1.0 / variances).flatten(0, 1), expected.means.repeat(s, 1)
        else:
            prior = torch.diag_embed(precisions).repeat_interleave(n, 0)
            prior_mean = torch.zeros(s * n, width, dtype=dtype, device=device)
            if priors.weights is not None:
                prior_mean = _implicit_means(feedback, places, common, priors, draws).flatten(0, 1)
        table = common.means[:, draws].transpose(0, 1).reshape(s * m, k + 1)
        return cls(
            common, table, at_draws, entries, feedback.values.to(dtype).repeat(s), precision,
            prior, prior_mean, turns, centre, n,
        )  # fmt: skip

    def draw(self, utilities: Utilities, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return draws (n, s, D), conditional means (n, s, D) and multipliers of the noise (s, n)."""
        noisy, of = self.priors.row_precision_shape is not None, self.entries.rows
        observed = utilities.observe(self.values + self.centre) if utilities.latent else self.values
        cuts = self.priors.cuts.repeat_interleave(len(self.values) // len(self.turns), 0)
        own, z, rows = self.weight.new_ones(len(self.prior)), self.values, self.prior_mean
        unknown = self._unknown(rows)
        rows, mean = self._draw_rows(z, own, unknown)
        for _ in range(steps):
            eta = (self.features[self.at] * rows[of]).sum(-1) + self.level[self.at]
            unknown = self._unknown(rows)
            if utilities.latent:
                sd = (1.0 / (self.weight * own[of]) + unknown).sqrt()
                z = utilities.draw_given(cuts, eta.double(), sd.double(), observed).to(eta.dtype)
            if noisy:
                own = self._draw_noise(z - eta, own, unknown)
            rows, mean = self._draw_rows(z, own, unknown)
        shape = len(self.turns), self.n
        draws, means = (self._as_drawn(one).view(*shape, -1).transpose(0, 1) for one in (rows, mean))
        return draws, means, own.rsqrt().view(shape)

    @cached_property
    def at(self) -> Tensor:
        """Place in `table` of each entry."""
        return self.entries.indices.long()

    @cached_property
    def features(self) -> Tensor:
        """What a row's factors and bias are multiplied by, (s * m, D)."""
        features = self.table.clone()
        features[:, -1] = 1.0
        return features[:, : self.prior.shape[-1]]

    @cached_property
    def level(self) -> Tensor:
        """What the columns' predictors start from, (s * m,)."""
        return self.table[:, -1]

    @cached_property
    def products(self) -> Tensor:
        """Outer products of the features, (s * m, D * D)."""
        return outer_products(self.features)

    def _unknown(self, rows: Tensor) -> Tensor:
        """Return the variance of each entry's predictor by what is unknown of the other side, f^T C f."""
        k = self.turns.shape[-1]
        squares = torch.cat([rows[:, :k], torch.ones_like(rows[:, :1])], 1) ** 2
        variances = self.common.variances[self.at % len(self.common.columns)]
        found: Tensor = (squares[self.entries.rows] * variances).sum(-1)
        return found

    def _draw_noise(self, residuals: Tensor, own: Tensor, unknown: Tensor) -> Tensor:
        """Draw the rows' multipliers of the noise's precision, given the noise's part of the residuals."""
        of, shape = self.entries.rows, self.priors.row_precision_shape
        assert shape is not None
        variance = 1.0 / (self.weight * own[of])
        part = variance / (variance + unknown)
        residuals = part * residuals + (part * unknown).sqrt() * torch.randn_like(residuals)
        total = self.entries.row_sums(residuals**2 * self.weight).double()
        shape = shape.repeat_interleave(self.n)
        counts = self.entries.indptr.diff().double()
        return draw_row_noise(counts, total, shape).to(own.dtype)

    def _draw_rows(self, utilities: Tensor, own: Tensor, unknown: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the rows and return their conditional means too, in the common coordinates."""
        precision = 1.0 / (1.0 / (self.weight * own[self.entries.rows]) + unknown)
        linear = self.entries.sum(self.features, precision * (utilities - self.level[self.at]))
        information = self.entries.sum(self.products, precision).view(self.prior.shape)
        found = Conditional.of(self.prior, information, linear)
        mean = found.solve(linear + (self.prior @ self.prior_mean.unsqueeze(-1)).squeeze(-1))
        return mean + found.spread(torch.randn_like(mean)), mean

    def _as_drawn(self, rows: Tensor) -> Tensor:
        """Return rows of the common coordinates as each draw of the chain has them."""
        k = self.turns.shape[-1]
        factors = (rows.view(len(self.turns), self.n, -1)[..., :k] @ self.turns.mT).flatten(0, 1)
        found = torch.cat([factors, rows[:, k:]], 1)
        return found + self.priors.location.to(rows.dtype).repeat_interleave(self.n, 0)
