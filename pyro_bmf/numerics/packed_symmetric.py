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
    return packed.index_select(1, places(width, packed.device).flatten()).view(-1, width, width)


def places(width: int, device: torch.device) -> Tensor:
    """Return where `pack` puts each number of a matrix, (width, width), int64.

    By arithmetic: on a card deterministic assignments by index are sorted first.
    """
    one = torch.arange(width, device=device)
    high, low = torch.maximum(one.unsqueeze(1), one), torch.minimum(one.unsqueeze(1), one)
    return high * (high + 1) // 2 + low
