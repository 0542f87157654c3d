"""Factorisations and solutions that a graphics card's host does not wait for.

`torch.linalg.cholesky` and its like ask the device at every call whether it went well, for which a card's
queue must empty. Here what cannot be factorised becomes NaN: whatever is computed of it is NaN too, and is
found where an iteration's figures are read. On a CPU the numbers are those of `torch.linalg`, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import room


def cholesky(matrices: Tensor) -> Tensor:
    """Return lower Cholesky factors (..., D, D); NaN on the diagonal of those that there are none of."""
    return _or_nan(*torch.linalg.cholesky_ex(matrices))


def inverse(matrices: Tensor) -> Tensor:
    """Return the inverses of symmetric positive definite matrices (..., D, D); NaN where one is not that."""
    if room.waits(matrices.device):
        return inverse_of_root(cholesky(matrices))  # of general ones a card's cannot be recorded
    return _or_nan(*torch.linalg.inv_ex(matrices))


def inverse_of_root(root: Tensor) -> Tensor:
    """Return the inverses of the matrices (..., D, D) whose lower Cholesky factors these are."""
    if not room.waits(root.device):
        return torch.cholesky_inverse(root)
    # `cholesky_inverse` asks the card how it went, and solves for one matrix of a batch after the other.
    half = inverse_of_triangle(root)
    return half.mT @ half


def inverse_of_triangle(root: Tensor) -> Tensor:
    """Return the inverses of lower triangles (..., D, D)."""
    if not room.waits(root.device):
        return _or_nan(*torch.linalg.inv_ex(root))
    eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    found: Tensor = torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False)
    return found


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve a symmetric positive definite matrix (D, D) for a vector (D,); NaN where it is not one."""
    if room.waits(matrix.device):
        return torch.cholesky_solve(right.unsqueeze(-1), cholesky(matrix)).squeeze(-1)
    found, failed = torch.linalg.solve_ex(matrix, right)
    solved: Tensor = found.masked_fill_(failed != 0, torch.nan)
    return solved


def _or_nan(found: Tensor, failed: Tensor) -> Tensor:
    found.diagonal(dim1=-2, dim2=-1).masked_fill_((failed != 0).unsqueeze(-1), torch.nan)
    return found
