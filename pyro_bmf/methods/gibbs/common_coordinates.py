"""Draws of the other side's rows in coordinates that all draws of a chain have in common (see `new_rows`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...model.row_draws import RowDraws, working_dtype

#: Rows, at most, by which draws are turned to each other.
_ROWS = 5_000
#: How often draws are turned to their mean.
_TURNS = 4


@dataclass(frozen=True, eq=False)
class Priors:
    """Draws of what new rows are drawn by.

    Attributes
    ----------
    location : Tensor, shape (n_draws, D)
    precision : Tensor, shape (n_draws, D, D)
        Of the new rows' prior.
    weights : Tensor or None, shape (n_draws, n_other, D)
        Of implicit feedback.
    row_precision_shape : Tensor or None, shape (n_draws,)
        Of the prior of a row's noise precision; None where rows have no noise of their own.
    noise_precision : Tensor, shape (n_draws,)
    cuts : Tensor, shape (n_draws, n_cuts)
        Less the centre.
    """

    location: Tensor
    precision: Tensor
    weights: Tensor | None
    row_precision_shape: Tensor | None
    noise_precision: Tensor
    cuts: Tensor

    def at(self, draws: Tensor) -> Priors:
        """Return those of some draws."""
        changed: dict[str, Tensor] = {
            name: value[draws]
            for name, value in vars(self).items()
            if value is not None and name != "weights"
        }
        return replace(self, **changed)


@dataclass(frozen=True, eq=False)
class Common:
    r"""What is known of the other side's rows in coordinates that all draws have in common.

    Attributes
    ----------
    columns : Tensor, shape (m,)
        Which rows, ascending.
    means : Tensor, shape (m, n_draws, K + 1)
        Conditional means of factors and, last, of the level: the row's bias and what it makes of the location
        of the new rows' prior.
    variances : Tensor, shape (m, K + 1)
        Of the draws about their mean.
    turns : Tensor, shape (n_draws, K, K)
        T of each draw: a new row's factors are :math:`T a` where they are a in the common coordinates, and
        the other side's are :math:`T^{-T} a`.
    """

    columns: Tensor
    means: Tensor
    variances: Tensor
    turns: Tensor

    @classmethod
    def of(cls, other: RowDraws, columns: Tensor, priors: Priors) -> Common:
        """Turn draws to each other."""
        k = other.n_factors
        step = max(1, -(-len(other) // _ROWS))
        tril = torch.linalg.cholesky(priors.precision[:, :k, :k].double())
        some = other.means_of(torch.arange(0, len(other), step, device=other.device))[..., :k]
        # As if the new rows' prior had the identity for covariance: columns are as long as they matter.
        standard = torch.linalg.solve_triangular(tril, some.double().permute(1, 2, 0), upper=False).mT
        turns = torch.linalg.solve_triangular(tril.mT, _rotations(standard), upper=True)
        location = priors.location.double()

        def turned(rows: Tensor) -> Tensor:
            rows = rows.double()
            factors = torch.einsum("msk,skl->msl", rows[..., :k], turns)
            level = torch.einsum("msk,sk->ms", rows[..., :k], location[:, :k])
            if other.bias:
                level = level + rows[..., k] + location[:, k]
            return torch.cat([factors, level.unsqueeze(-1)], -1)

        means, draws = turned(other.means_of(columns)), turned(other.draws_of(columns))
        apart = draws - means.mean(1, keepdim=True)
        axes = torch.linalg.eigh(torch.einsum("msk,msl->kl", apart[..., :k], apart[..., :k]))[1]
        means[..., :k], apart[..., :k] = means[..., :k] @ axes, apart[..., :k] @ axes
        turns, variances = turns @ axes, apart.square().mean(1)
        dtype = working_dtype(other.draws)
        return cls(columns, means.to(dtype), variances.to(dtype), turns.to(dtype))


def _rotations(rows: Tensor) -> Tensor:
    """Return the rotation of each draw's rows (n_draws, n, K) that brings them closest to those of all."""
    centre = rows[-1]
    for _ in range(_TURNS):
        left, _, right = torch.linalg.svd(rows.mT @ centre)
        rotations: Tensor = left @ right
        centre = (rows @ rotations).mean(0)
    return rotations
