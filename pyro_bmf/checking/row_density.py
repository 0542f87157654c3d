"""Log-densities of rows under their own q."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..model.rows import RowPosterior

_LOG_2PI = math.log(2.0 * math.pi)


def join(factors: Tensor, bias: Tensor | None) -> Tensor:
    """Put a bias behind the factors: (..., D)."""
    return factors if bias is None else torch.cat([factors, bias.unsqueeze(-1)], -1)


def log_density(q: RowPosterior, x: Tensor) -> Tensor:
    """Return log q(x), (S, n), of rows (S, n, D) under the posteriors of n rows: differentiable in both."""
    k = q.n_factors
    if q.tril is not None:
        loc = q.loc if q.bias_loc is None else torch.cat([q.loc, q.bias_loc[:, None]], 1)
        white = torch.linalg.solve_triangular(q.tril, (x - loc).permute(1, 2, 0), upper=False)
        log_det = q.tril.diagonal(dim1=1, dim2=2).log().sum(-1)
        joint: Tensor = -0.5 * (white**2).sum(1) - (log_det + 0.5 * x.shape[-1] * _LOG_2PI)[:, None]
        return joint.T
    if q.positive is None:
        total = _normal(x[..., :k], q.loc, q.scale).sum(-1)
    else:
        logs = x[..., :k].clamp_min(1e-300).log()
        total = (_normal(logs, *q.logarithms()) - logs).sum(-1)
    if q.bias_loc is not None and q.bias_scale is not None:
        total = total + _normal(x[..., -1], q.bias_loc, q.bias_scale)
    return total


def _normal(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((x - loc) / scale) ** 2 - scale.log() - 0.5 * _LOG_2PI
