"""How a row rates: what an encoder says of its noise and its cut points, from its histogram.

The towers read sums over ratings, which know nothing of how widely a row rates. This small network reads the
shares of its ratings between fixed edges, their mean and spread, their spread about the means of what was
rated, and how many there are; no more is needed for a new row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...model.feedback import Feedback
from ...numerics.normal_cells import midway
from ...numerics.segment_sums import segment_sum

#: Largest standard deviation of a number under q; priors are narrower.
_BOUND = 0.5
#: Where standard deviations start, as a share of that.
_START = 0.3
#: So many ratings give a row's own histogram half of the weight.
_WEIGHT = 5.0
_UNITS = 16


class StyleEncoder(nn.Module):
    """Means and standard deviations of a few numbers a row, from the row's ratings alone.

    Parameters
    ----------
    n_edges : int
        Number of edges between which ratings are counted.
    n_columns : int
        Rows of the other side.
    width : int
        Numbers a row.

    Attributes
    ----------
    edges : Tensor, shape (n_edges,)
    centres : Tensor, shape (n_columns,)
        Mean training rating of each row of the other side, shrunk towards zero.
    """

    edges: Tensor
    centres: Tensor

    def __init__(self, n_edges: int, n_columns: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("edges", torch.zeros(n_edges))
        self.register_buffer("centres", torch.zeros(n_columns))
        self.hidden = nn.Linear(n_edges + 5, _UNITS)
        self.out = nn.Linear(_UNITS, 2 * width)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()
            self.out.bias[width:] = torch.logit(torch.tensor(_START))

    @torch.no_grad()
    def start(self, edges: Tensor, feedback: Feedback) -> None:
        """Take the edges, and the other side's means, from the training rows."""
        self.edges.copy_(edges)
        total = segment_sum(feedback.values.to(self.centres), feedback.column_segments)
        counts = feedback.t_indptr.diff().to(total)
        self.centres.copy_(total / (counts + _WEIGHT))

    def forward(self, feedback: Feedback) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations, each (n_rows, width); means of empty rows are zero."""
        features, weight = self._features(feedback)
        loc, scale = self.out(torch.tanh(self.hidden(features))).split(self.width, -1)
        return weight * loc, _BOUND * torch.sigmoid(scale)

    def _features(self, feedback: Feedback) -> tuple[Tensor, Tensor]:
        """Return what the network reads, (n_rows, n_edges + 5), and the weight of rows' own, (n_rows, 1)."""
        values, segments = feedback.values, feedback.row_segments
        entries = torch.ones_like(values) if feedback.mask is None else (feedback.mask > 0).to(values)
        n_bins = len(self.edges) + 1
        place = torch.bucketize(values, self.edges.to(values))
        in_bin = (place.unsqueeze(-1) == torch.arange(n_bins, device=place.device)).to(values)
        shares = segment_sum(in_bin * entries.unsqueeze(-1), segments)
        counts = shares.sum(-1, keepdim=True)

        def mean(of: Tensor) -> Tensor:
            return segment_sum(of * entries, segments).unsqueeze(-1) / counts.clamp_min(1.0)

        weight = counts / (counts + _WEIGHT)
        first = mean(values)
        left = values - self.centres[feedback.indices.long()].to(values)
        spreads = [(mean(one**2) - mean(one) ** 2).clamp_min(0.0).sqrt() for one in (values, left)]
        read = torch.cat([shares / counts.clamp_min(1.0), first, *spreads], -1)
        return torch.cat([weight * read, torch.log1p(counts) / 5.0], -1), weight


def style_edges(values: Tensor, levels: Tensor | None) -> Tensor:
    """Return the edges of histograms: midway between levels, or nine quantiles of values without levels.

    Parameters
    ----------
    values : Tensor, shape (n,)
        Training ratings as encoders read them (centred).
    levels : Tensor or None, shape (n_levels,)
        The same of the scale's levels.
    """
    if levels is not None and len(levels) <= 21:
        return midway(levels)
    steps = torch.linspace(0.1, 0.9, 9, dtype=values.dtype, device=values.device)
    some = values[:: max(1, len(values) // 1_000_000)]  # torch's quantile takes no more than 16 million
    return torch.quantile(some, steps)
