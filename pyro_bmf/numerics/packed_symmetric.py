"""Symmetric matrices by their lower triangle, which sums over ratings need half as much memory for."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(matrices: Tensor) -> Tensor:
    """Return the lower triangles of symmetric matrices (n, D, D), row by row: (n, D (D + 1) / 2)."""
    width = matrices.shape[-1]
    rows, columns = torch.tril_indices(width, width, device=matrices.device)
    return matrices.flatten(1).index_select(1, rows * width + columns)


def unpack(packed: Tensor, width: int) -> Tensor:
    """Return the symmetric matrices (n, D, D) whose `pack` this is."""
    rows, columns = torch.tril_indices(width, width, device=packed.device)
    place = torch.empty(width, width, dtype=torch.int64, device=packed.device)
    place[rows, columns] = place[columns, rows] = torch.arange(len(rows), device=packed.device)
    return packed.index_select(1, place.flatten()).view(-1, width, width)
