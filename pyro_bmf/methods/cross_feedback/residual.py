r"""What an encoder does not say of the rows that it was trained on: parameters of their own.

A training row i has a free residual :math:`\mathcal{N}(r_i, \mathrm{diag}(e_i^2))` that is added to what its
encoder gives, independent of it. A new row has none, but is not surer for it: the mean of
:math:`r_i^2 + e_i^2` over the training rows is added to its variance, factor by factor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: Standard deviation of a residual at the start, as a share of the prior's.
_START = 0.1


class Residual(nn.Module):
    """Residuals of the rows of one side; everything in units of the prior's standard deviation.

    Parameters
    ----------
    n_rows : int
    width : int
        Number of factors, and one more with a bias.

    Attributes
    ----------
    loc, log_scale : Parameter, shape (n_rows, width)
        :math:`r_i`, and the logarithm of :math:`e_i`.
    spread : Tensor, shape (width,)
        Variance that a new row gets: see `refresh`.
    """

    spread: Tensor

    def __init__(self, n_rows: int, width: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(n_rows, width))
        self.log_scale = nn.Parameter(torch.full((n_rows, width), self.start()))
        self.register_buffer("spread", torch.full((width,), _START**2))

    @staticmethod
    def start() -> float:
        """Return what `log_scale` starts at."""
        return math.log(_START)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and variances of the residuals of some training rows, each (len(rows), width)."""
        return self.loc[rows], (2.0 * self.log_scale[rows]).exp()

    @torch.no_grad()
    def refresh(self, counts: Tensor) -> None:
        """Take `spread` from the residuals of the rows that have ratings.

        Parameters
        ----------
        counts : Tensor, shape (n_rows,)
            Ratings of each row. Rows without any are left out: theirs only undo the encoder's answer to an
            empty input, and say nothing of what it misses in others.
        """
        second = self.loc**2 + (2.0 * self.log_scale).exp()
        seen = (counts > 0).to(second)[:, None]
        self.spread.copy_((second * seen).sum(0) / seen.sum().clamp_min(1.0))
