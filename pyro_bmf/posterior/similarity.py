r"""Which rows of one side are alike under the posterior.

The similarity of rows a and b is

.. math:: \frac{E[a]^T M\, E[b]}{\sqrt{E[a^T M a]\; E[b^T M b]}}, \qquad
          E[a^T M a] = E[a]^T M\, E[a] + \mathrm{tr}(M\, \mathrm{cov}[a]),

so a row about which little is known is like nothing, rather than like everything its noise points at. With
M the covariance of the *other* side's factors (``correlation``) it is the correlation, over the other side's
rows and the posterior, of what is predicted for the two beyond biases: it does not change when factors are
rotated or rescaled. With M the identity (``cosine``) it is the cosine of the factors.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SettingsError
from ..model.fitted import Side
from ..systems.raw_ids import check_count, check_interval
from .predictive import PairPredictive

_DRAWS = 400


@torch.no_grad()
def similar_rows(
    pairs: PairPredictive, side: Side, row: int, n: int, *, measure: str, interval: float, seed: int
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Return the `n` rows most similar to `row`, best first, and their similarity, sd, lower and upper.

    The interval is of the same ratio at joint draws of the factors, without the posterior's spread in it. Of
    a chain each draw has its own metric, as factors may turn from draw to draw.
    """
    if measure not in ("correlation", "cosine"):
        raise SettingsError(f"measure is {measure!r}: it may be 'correlation' or 'cosine'.")
    n, interval = check_count("n", n), check_interval(interval)
    own, other = (pairs.users, pairs.items) if side == "user" else (pairs.items, pairs.users)
    inner = torch.zeros(len(own), dtype=torch.float64, device=own.device)
    norms = torch.zeros_like(inner)
    metrics = []
    for (loc, variance), others in zip(own.factor_moments(), other.factor_moments(), strict=True):
        metric = _metric(*others, measure)
        metrics.append(metric)
        turned = loc @ metric
        inner += turned @ loc[row]
        norms += (turned * loc).sum(-1) + variance @ metric.diagonal()
    values = (inner / (norms * norms[row]).clamp_min(1e-300).sqrt()).cpu().numpy()
    values[row] = -np.inf
    order = np.lexsort((np.arange(len(values)), -values))[: min(n, len(values) - 1)]
    draws = np.arange(own.sampling.number(None, _DRAWS))
    factors, _ = pairs.draw_rows(side, np.concatenate(([row], order)), draws, seed)
    parts = factors.double().split(len(draws) // len(metrics))  # type: ignore[no-untyped-call]
    drawn = np.concatenate([_drawn_similarity(part, one) for part, one in zip(parts, metrics, strict=True)])
    tail = (1.0 - interval) / 2.0
    lower, upper = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    table = pd.DataFrame(
        {"similarity": values[order], "sd": drawn.std(axis=0), "lower": lower, "upper": upper}
    )
    return order.astype(np.int64), table


def _metric(loc: Tensor, variance: Tensor, measure: str) -> Tensor:
    """Return the second moments of a side's factors about their mean, or the identity."""
    if measure == "cosine":
        return torch.eye(loc.shape[1], dtype=loc.dtype, device=loc.device)
    centred = loc - loc.mean(0)
    return centred.T @ centred / len(loc) + torch.diag(variance.mean(0))


def _drawn_similarity(factors: Tensor, metric: Tensor) -> NDArray[np.float64]:
    """Similarity of the first row to each other one in every draw, shape (n_draws, n_rows - 1)."""
    turned = factors @ metric
    norms = (turned * factors).sum(-1)
    products = (turned[:, :1] * factors[:, 1:]).sum(-1)
    drawn: NDArray[np.float64] = (
        (products / (norms[:, :1] * norms[:, 1:]).clamp_min(1e-300).sqrt()).cpu().numpy()
    )
    return drawn
